package training_test

import (
	"slices"
	"strings"
	"testing"

	"falaj/internal/kernel/fault"
	"falaj/internal/training"

	"pgregory.net/rapid"
)

func TestSplitCommand(t *testing.T) {
	t.Parallel()
	for command, want := range map[string][]string{
		"python train.py --trees {trees}": {"python", "train.py", "--trees", "{trees}"},
		`python -c 'print("a b; $x")' ""`: {"python", "-c", `print("a b; $x")`, ""},
		`a\ b "c \" d" e\\f  g`:           {"a b", `c " d`, `e\f`, "g"},
		`pre'fix 'post`:                   {"prefix post"},
		`"a\nb"`:                          {`a\nb`},
	} {
		if got, err := training.SplitCommand(command); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q gave %q, %v, want %q", command, got, err, want)
		}
	}
	for _, bad := range []string{"", "   ", "a | b", "a; b", "a && b", "a > b", "echo $HOME", "echo `id`", "a $(id)", "a *.py", "a\nb", "a 'b", `a "b`, "a\x00b"} {
		if got, err := training.SplitCommand(bad); !fault.Is(err, fault.Invalid) || fault.From(err).Field != "run" {
			t.Errorf("%q gave %q, %v", bad, got, err)
		}
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	params := map[string]string{"trees": "200", "rate": "-0.5", "name": "a b; {trees} $(id)", "evil": "--output=/etc/passwd", "empty": ""}
	for word, want := range map[string]string{
		"{trees}": "200", "--trees={trees}": "--trees=200", "{rate}": "-0.5", "{name}": "a b; {trees} $(id)", "x={evil}": "x=--output=/etc/passwd",
		"{{trees}}": "{trees}", "{trees}{trees}": "200200", "{empty}": "", "plain": "plain", "{empty}{trees}": "200",
	} {
		if got, err := training.Expand([]string{word}, params); err != nil || got[0] != want || len(got) != 1 {
			t.Errorf("%q gave %q, %v, want %q", word, got, err, want)
		}
	}
	for _, bad := range []string{"{unknown}", "{trees", "trees}", "{evil}", "{}", "{empty}{evil}"} {
		if got, err := training.Expand([]string{bad}, params); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q gave %q, %v", bad, got, err)
		}
	}
	if _, err := training.Expand([]string{"{x}"}, map[string]string{"x": "a\x00b"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a NUL byte gave %v", err)
	}
}

// Whatever a value holds, it stays one word and is not looked into again.
func TestExpandKeepsValuesWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[^\x00]*`).Draw(t, "value")
		got, err := training.Expand([]string{"--x={v}", "tail"}, map[string]string{"v": value})
		if err != nil || len(got) != 2 || got[0] != "--x="+value {
			t.Fatalf("%q became %q, %v", value, got, err)
		}
	})
}

func hash(c string) string { return "--hash=sha256:" + strings.Repeat(c, 64) }

func TestParseLock(t *testing.T) {
	t.Parallel()
	a, err := training.ParseLock([]byte("# made by uv\nSix==1.17.0 \\\n    " + hash("b") + " \\\n    " + hash("a") + "\n    # via x\nnumpy[extra]==2.0 ; python_version >= '3.10' \\\n " + hash("c") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := training.ParseLock([]byte("numpy[extra]==2.0 ;  python_version >= '3.10' " + hash("c") + "\r\nsix==1.17.0 " + hash("a") + " " + hash("b") + " # note\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest() != b.Digest() || a.Text() != b.Text() {
		t.Errorf("two spellings differ:\n%s\n%s", a.Text(), b.Text())
	}
	if want := "numpy[extra]==2.0 ; python_version >= '3.10' " + hash("c") + "\nsix==1.17.0 " + hash("a") + " " + hash("b") + "\n"; a.Text() != want {
		t.Errorf("normal form\n%s\nwant\n%s", a.Text(), want)
	}
	c, err := training.ParseLock([]byte("six==1.17.0 " + hash("a")))
	if err != nil || c.Digest() == a.Digest() {
		t.Errorf("another lock has the same digest (%v)", err)
	}
}

func TestParseLockRefusesAndNamesTheLine(t *testing.T) {
	t.Parallel()
	good := "six==1.17.0 " + hash("a") + "\n"
	for line, why := range map[string]string{
		"--index-url https://user:pw@evil.example/simple":        "is an option",
		"-i https://evil.example/simple":                         "is an option",
		"--extra-index-url https://evil.example/":                "is an option",
		"--find-links /tmp/wheels":                               "is an option",
		"-r other.txt":                                           "is an option",
		"-e .":                                                   "is an option",
		"--no-index":                                             "is an option",
		"--hash=sha256:" + strings.Repeat("a", 64):               "is an option",
		"numpy==2.0":                                             "has no hash",
		"numpy>=2.0 " + hash("b"):                                "is not pinned",
		"numpy==2.* " + hash("b"):                                "is not pinned",
		"numpy " + hash("b"):                                     "is not pinned",
		"./local.whl " + hash("b"):                               "is not pinned",
		"numpy @ https://evil.example/n.whl " + hash("b"):        "names a URL",
		"https://evil.example/n.whl " + hash("b"):                "names a URL",
		"numpy==2.0 --hash=md5:abc":                              "not sha256",
		"numpy==2.0 --hash=sha256:abc":                           "not sha256",
		"numpy==2.0 --config-settings=x " + hash("b"):            "carries an option",
		"numpy==2.0 " + hash("b") + " --global-option=x":         "not sha256",
		"SIX==1.16.0 " + hash("b"):                               "repeats the requirement of line 2",
		"numpy==2.0 \\\n\n--index-url https://evil " + hash("b"): "",
	} {
		_, err := training.ParseLock([]byte("# comment\n" + good + line + "\n"))
		f := fault.From(err)
		if f == nil || f.Kind != fault.Invalid || !strings.Contains(f.Public, "Line 3") || !strings.Contains(f.Public, why) || f.Next == "" {
			if why != "" || f == nil {
				t.Errorf("%q gave %v, want %q", line, err, why)
			}
		}
	}
	for name, text := range map[string]string{"empty": "", "only comments": "# nothing\n", "too large": strings.Repeat("x", 9<<20)} {
		if _, err := training.ParseLock([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add("six==1.17.0 " + hash("a"))
	f.Add("six==1.17.0 \\\n--hash=x")
	f.Fuzz(func(t *testing.T, text string) {
		lock, err := training.ParseLock([]byte(text))
		if err != nil {
			return
		}
		// What was accepted must be its own normal form, and hold nothing an installer could take for an option or a place.
		again, err := training.ParseLock([]byte(lock.Text()))
		if err != nil || again.Text() != lock.Text() {
			t.Fatalf("%q: %v\n%q", text, err, lock.Text())
		}
		for line := range strings.Lines(lock.Text()) {
			if head, _, ok := strings.Cut(line, " --hash=sha256:"); !ok || strings.HasPrefix(head, "-") || strings.Contains(head, "://") || strings.Contains(head, " -") {
				t.Fatalf("accepted %q", line)
			}
		}
	})
}
