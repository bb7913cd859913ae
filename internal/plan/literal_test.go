package plan

import (
	"os"
	"strings"
	"testing"

	"falaj/internal/kernel/fault"
)

// The texts of this test are put together here, so that no file of ours holds a secret.
func TestSecretsAreReferences(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../e2e/testdata/tiny/falaj.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := string(b)
	if _, err := Parse(b); err != nil {
		t.Fatal(err)
	}
	const anchor = "      params: {trees: 20, mode: good}\n"
	with := func(lines string) string { return strings.Replace(file, anchor, anchor+lines, 1) }
	p, err := Parse([]byte(with("      secrets: {DB: secret://DB_PASSWORD, KEY: env://API_KEY, pem: file://tls/key.pem}\n")))
	if err != nil || p.Models["breaks"].Train.Secrets["KEY"] != "env://API_KEY" {
		t.Fatalf("%v", err)
	}
	value := "8f14e45fceea" + "167a5a36dedd4bea2543"
	for name, c := range map[string]struct {
		text, place string
		kind        fault.Kind
	}{
		"a value for a reference":    {with("      secrets: {DB: hunter2hunter2}\n"), "falaj.yaml:44:", fault.Invalid},
		"a random value":             {with("      secrets: {DB_TOKEN: " + value + "}\n"), "falaj.yaml:44:27: models.breaks.train.secrets.DB_TOKEN holds", fault.Invalid},
		"a vault":                    {with("      secrets: {DB: 'vault://kv/db#pw'}\n"), "falaj.yaml:44:17: References to a Vault are not available in this version", fault.Unsupported},
		"a traversal":                {with("      secrets: {DB: file://../x}\n"), "falaj.yaml:44:17:", fault.Invalid},
		"a name":                     {with("      secrets: {a-b: secret://X}\n"), "falaj.yaml:44:17: 'a-b' is no name of a secret", fault.Invalid},
		"in tests":                   {strings.Replace(file, "    tests:\n", "    tests:\n      secrets: {DB: hunter2hunter2}\n", 1), "falaj.yaml:46:17:", fault.Invalid},
		"a parameter":                {strings.Replace(file, "mode: good}", "mode: good, api_key: "+value+"}", 1), "falaj.yaml:43:48: models.breaks.train.params.api_key holds", fault.Invalid},
		"a parameter on a next line": {strings.Replace(file, anchor, "      params:\n        trees: 20\n        mode: good\n        token: >-\n          "+value+"\n", 1), "models.breaks.train.params.token holds", fault.Invalid},
		"a command":                  {strings.Replace(file, "--mode {mode}", "--mode {mode} --db-password "+"Kx9w2LqPz7", 1), "falaj.yaml:37:12: models.breaks.train.run holds", fault.Invalid},
		"a URL":                      {strings.Replace(file, "--mode {mode}", "--mode {mode} --db postgres://amal:"+"hunter2@db/x", 1), "falaj.yaml:37:12: models.breaks.train.run holds a URL with a password", fault.Invalid},
		"a comment":                  {file + "# old key: AKIA" + "IOSFODNN7EXAMPLE\n", "This line holds an access key", fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(c.text))
			if fault.KindOf(err) != c.kind || !strings.Contains(fault.From(err).Public, c.place) || fault.From(err).Next == "" {
				t.Errorf("%v: want %s at %s", err, c.kind, c.place)
			}
			for _, v := range []string{value, "hunter2", "Kx9w2", "IOSFODNN7"} {
				if text := fault.From(err); strings.Contains(text.Public+text.Next+text.Field, v) {
					t.Errorf("the refusal shows the secret: %v", err)
				}
			}
		})
	}
}

func TestTheDemosFilesHoldNoLiteral(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../../demo/flights/falaj.yaml", "../e2e/testdata/tiny/falaj.yaml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParametersOfARunAreNoSecrets(t *testing.T) {
	t.Parallel()
	if err := CheckParams(map[string]string{"trees": "20", "tokenizer": "all-MiniLM-L6-v2", "key": "machine"}); err != nil {
		t.Error(err)
	}
	err := CheckParams(map[string]string{"trees": "20", "db_password": "hunter2" + "hunter2"})
	if !fault.Is(err, fault.Invalid) || fault.From(err).Field != "params.db_password" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
