package training

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"falaj/internal/kernel/fault"
)

// SplitCommand cuts a command line into words the way a shell quotes ('...', "...", \x), and does nothing else that a
// shell does. Unquoted shell syntax (| & ; < > $ ` ( ) * ? newline) is refused, because it would not work.
func SplitCommand(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	runes := []rune(command)
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		switch {
		case c == 0:
			return nil, fault.New(fault.Invalid, "The command holds a NUL byte.", "Remove it.").At("run")
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(runes) && (quote == 0 || strings.ContainsRune(`"\`, runes[i+1])):
			i++
			inWord = true
			word.WriteRune(runes[i])
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words, inWord = append(words, word.String()), false
				word.Reset()
			}
		case strings.ContainsRune("|&;<>$`()*?\n\r", c):
			return nil, fault.New(fault.Invalid, fmt.Sprintf("%q in the command is shell syntax, and commands run without a shell.", string(c)),
				"Put it in quotes if you mean the character itself, else move the logic into your script.").At("run")
		default:
			inWord = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("A quote %c in the command is not closed.", quote), "Close it.").At("run")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, fault.New(fault.Invalid, "The command is empty.", "Write what to run, for example: python train.py").At("run")
	}
	return words, nil
}

// Expand replaces {name} in each word by the parameter of that name; {{ and }} stand for the braces themselves. A value
// stays inside its word whatever it holds, is never expanded again, and may not turn into an option by starting with "-".
func Expand(argv []string, params map[string]string) ([]string, error) {
	out := make([]string, len(argv))
	for i, word := range argv {
		var b strings.Builder
		for rest := word; rest != ""; {
			switch at := strings.IndexAny(rest, "{}"); {
			case at < 0:
				b.WriteString(rest)
				rest = ""
			case strings.HasPrefix(rest[at:], "{{") || strings.HasPrefix(rest[at:], "}}"):
				b.WriteString(rest[:at+1])
				rest = rest[at+2:]
			default:
				b.WriteString(rest[:at])
				end := strings.IndexByte(rest[at:], '}')
				if rest[at] == '}' || end < 0 {
					return nil, fault.New(fault.Invalid, fmt.Sprintf("A brace in %q is not paired.", word), "Write {name} for a parameter, {{ and }} for braces.").At("run")
				}
				value, err := lookup(rest[at+1:at+end], params, b.Len() == 0)
				if err != nil {
					return nil, err
				}
				b.WriteString(value)
				rest = rest[at+end+1:]
			}
		}
		out[i] = b.String()
	}
	return out, nil
}

func lookup(name string, params map[string]string, first bool) (string, error) {
	value, ok := params[name]
	if !ok {
		have := strings.Join(slices.Sorted(maps.Keys(params)), ", ")
		return "", fault.New(fault.Invalid, fmt.Sprintf("The command names the parameter {%s}, which is not declared.", name),
			fmt.Sprintf("Declare it under params (there are: %s).", have)).At("run")
	}
	if strings.ContainsRune(value, 0) {
		return "", fault.New(fault.Invalid, fmt.Sprintf("Parameter %s holds a NUL byte.", name), "Remove it.").At("params." + name)
	}
	if _, err := strconv.ParseFloat(value, 64); first && err != nil && strings.HasPrefix(value, "-") {
		return "", fault.New(fault.Invalid, fmt.Sprintf("Parameter %s starts with '-' and would be taken for an option.", name),
			fmt.Sprintf("Write --option={%s} in one word.", name)).At("params." + name)
	}
	return value, nil
}
