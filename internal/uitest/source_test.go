package uitest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStylesAreLogical keeps Arabic right: styles name start and end, never the two hands, because
// the pages mirror. Charts are drawn left to right and do it in numbers, not in styles.
func TestStylesAreLogical(t *testing.T) {
	t.Parallel()
	hands := regexp.MustCompile(`\b(left|right)\b`)
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	files := 0
	each(t, func(path, text string) {
		css := text
		if strings.HasSuffix(path, ".svelte") {
			css = ""
			for _, m := range style.FindAllStringSubmatch(text, -1) {
				css += m[1]
			}
		} else if !strings.HasSuffix(path, ".css") {
			return
		}
		files++
		for line := range strings.Lines(css) {
			if hands.MatchString(line) {
				t.Errorf("%s: %s", path, strings.TrimSpace(line))
			}
		}
	})
	if files < 30 {
		t.Errorf("only %d files with styles found: the test looks in the wrong place", files)
	}
}

// TestPagesCarryNoStyleAttributes: a style attribute in a template is blocked by the policy
// style-src 'self', silently for the user; style: directives go through the CSS object model.
func TestPagesCarryNoStyleAttributes(t *testing.T) {
	t.Parallel()
	attribute := regexp.MustCompile(`\sstyle=|\{@html`)
	each(t, func(path, text string) {
		if attribute.MatchString(text) {
			t.Errorf("%s has a style attribute or {@html}", path)
		}
	})
}

// TestNoRegistryInTheLock keeps addresses out of the lock file: a closed site has its own registry.
func TestNoRegistryInTheLock(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile(filepath.Join(root(t), "ui", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(lock), "http") || !strings.Contains(string(lock), `"integrity"`) {
		t.Error("ui/package-lock.json holds addresses, or lost its integrity hashes: run node scripts/lock.mjs in ui/")
	}
}

func each(t *testing.T, fn func(path, text string)) {
	t.Helper()
	dir := filepath.Join(root(t), "ui", "src")
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fn(name, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
