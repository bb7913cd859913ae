package training

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
)

// maxLock bounds a lock file in bytes: a thousand packages with all their hashes take about 2 MiB.
const maxLock = 8 << 20

// Lock is a checked list of requirements, each pinned to one version and to the SHA-256 of its files.
type Lock struct {
	lines []string // sorted; name==version ; marker --hash=... --hash=...
}

// Text is the normal form: one requirement a line, sorted, without comments.
func (l Lock) Text() string { return strings.Join(l.lines, "\n") + "\n" }

// Digest is the digest of the normal form, so comments, order and line breaks do not matter.
func (l Lock) Digest() string {
	sum := sha256.Sum256([]byte(l.Text()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ParseLock reads hash-pinned requirements as `uv pip compile --generate-hashes` or `uv export` write them. It refuses,
// naming the line: any option (an index, another file, an editable), URLs and paths, versions that are not pinned by ==,
// and requirements without a sha256. So the lock says what is installed, and the place says from where.
func ParseLock(text []byte) (Lock, error) {
	if len(text) > maxLock {
		return Lock{}, fault.New(fault.TooLarge, fmt.Sprintf("The lock file is larger than %d MiB.", maxLock>>20), "Check that it is a lock file.").At("runtime")
	}
	requirement := regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9._,\s-]+\])?\s*==\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(;[^@]*)?$`)
	hash := regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	var lock Lock
	seen := map[string]int{}
	for _, line := range joinLines(string(text)) {
		bad := func(why, next string) error {
			return fault.New(fault.Invalid, fmt.Sprintf("Line %d of the lock file (%.60q) %s.", line.number, line.text, why), next).At("runtime")
		}
		head, hashes, _ := strings.Cut(line.text, " --hash=")
		head = strings.TrimSpace(head)
		switch {
		case strings.HasPrefix(line.text, "-"):
			return Lock{}, bad("is an option", "A lock holds only requirements. Remove the line; where packages come from is configured on the machine (UV_DEFAULT_INDEX, or an offline wheelhouse).")
		case strings.Contains(head, "://") || strings.Contains(head, "@"):
			return Lock{}, bad("names a URL", "Pin a released version instead: name==version with hashes.")
		case strings.Contains(head, " -"):
			return Lock{}, bad("carries an option", "Remove it; only --hash=sha256:... is allowed.")
		}
		m := requirement.FindStringSubmatch(head)
		if m == nil {
			return Lock{}, bad("is not pinned by ==", "Write name==version; `uv pip compile --generate-hashes requirements.in -o requirements.lock` makes such a file.")
		}
		if hashes == "" {
			return Lock{}, bad("has no hash", "Make the lock with `uv pip compile --generate-hashes requirements.in -o requirements.lock`.")
		}
		list := strings.Split(hashes, " --hash=")
		for i := range list {
			if list[i] = strings.TrimSpace(list[i]); !hash.MatchString(list[i]) {
				return Lock{}, bad("has a hash that is not sha256", "Use --hash=sha256: and 64 hex digits.")
			}
		}
		slices.Sort(list)
		name := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(m[1]))
		id := name + m[4]
		if first := seen[id]; first != 0 {
			return Lock{}, bad(fmt.Sprintf("repeats the requirement of line %d", first), "Keep one of them.")
		}
		seen[id] = line.number
		lock.lines = append(lock.lines, name+strings.Join(strings.Fields(m[2]), "")+"=="+m[3]+spaced(m[4])+" --hash="+strings.Join(slices.Compact(list), " --hash="))
	}
	if len(lock.lines) == 0 {
		return Lock{}, fault.New(fault.Invalid, "The lock file names no package.", "Make it with `uv pip compile --generate-hashes requirements.in -o requirements.lock`.").At("runtime")
	}
	slices.Sort(lock.lines)
	return lock, nil
}

func spaced(marker string) string {
	if marker == "" {
		return ""
	}
	return " ; " + strings.Join(strings.Fields(strings.TrimPrefix(marker, ";")), " ")
}

type lockLine struct {
	number int
	text   string
}

// joinLines drops comments, joins lines that end in a backslash and squeezes white space; number is that of the first.
func joinLines(text string) (out []lockLine) {
	open := false
	for i, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if at := strings.Index(line, "#"); at == 0 || at > 0 && (line[at-1] == ' ' || line[at-1] == '\t') {
			line = line[:at]
		}
		more := strings.HasSuffix(strings.TrimRight(line, " \t"), `\`)
		line = strings.Join(strings.Fields(strings.TrimSuffix(strings.TrimRight(line, " \t"), `\`)), " ")
		switch {
		case open:
			out[len(out)-1].text = strings.TrimSpace(out[len(out)-1].text + " " + line)
		case line != "" || more:
			out = append(out, lockLine{i + 1, line})
		}
		open = more
	}
	return slices.DeleteFunc(out, func(l lockLine) bool { return l.text == "" })
}
