package housetest

import (
	"regexp"
	"strings"
	"testing"
)

// forbidden are texts that no file may hold, with the reason. They are put together here, so that this file passes too.
func forbidden() map[string]*regexp.Regexp {
	hosts := []string{
		"pypi" + `\.org`, "pythonhosted" + `\.org`, "registry" + `\.npmjs`, "registry" + `\.yarnpkg`, "proxy" + `\.golang`, "sum" + `\.golang`,
		"crates" + `\.io`, "repo1?" + `\.maven`, "deb" + `\.debian`, "security" + `\.debian`, "anaconda" + `\.org`, "hub" + `\.docker`, "ghcr" + `\.io`, "quay" + `\.io`,
		"hugging" + `face\.co`,
	}
	return map[string]*regexp.Regexp{
		"a registry's host name: a closed site has its own, set in the clients' own configuration": regexp.MustCompile(`\b(` + strings.Join(hosts, "|") + `)`),
		"a path of somebody's machine": regexp.MustCompile(`(^|[\s"'=:(` + "`" + `])/(root|work)/[A-Za-z.]`),
		"a token of falaj":             regexp.MustCompile(`\b` + "flj" + `_[A-Za-z0-9]{20,}`),
		"a private key":                regexp.MustCompile("-----BEGIN [A-Z ]*PRIVATE" + " KEY-----"),
		"a cloud or forge credential":  regexp.MustCompile(`\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|glpat-[A-Za-z0-9_-]{20})\b`),
	}
}

// TestNoHostsPathsOrCredentials: a file with one of these works on one machine, or gives one away.
func TestNoHostsPathsOrCredentials(t *testing.T) {
	t.Parallel()
	rules := forbidden()
	eachFile(t, func(name, text string) {
		for why, rule := range rules {
			for _, at := range rule.FindAllStringIndex(text, 3) {
				line := 1 + strings.Count(text[:at[0]], "\n")
				t.Errorf("%s:%d holds %s", name, line, why)
			}
		}
	})
}

func TestForbiddenSeesEachKind(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"https://" + "pypi" + ".org/simple":    true,
		"index of PyPI":                        false,
		`open("/` + `work/main/x")`:            true,
		"/" + "root/.cache":                    true,
		"see /home/amal/x":                     false,
		"/network/rootless":                    false,
		"flj" + "_" + strings.Repeat("a1", 16): true,
		"flj" + "_ tokens":                     false,
		"-----BEGIN EC PRIVATE" + " KEY-----":  true,
		"AKIA" + strings.Repeat("Z", 16):       true,
	} {
		got := false
		for _, rule := range forbidden() {
			got = got || rule.MatchString(text)
		}
		if got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
