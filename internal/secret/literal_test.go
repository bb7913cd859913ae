package secret_test

import (
	"os"
	"strings"
	"testing"

	"falaj/internal/secret"
)

// Secrets of this table are put together here, so that no file of ours holds one.
func TestLiteral(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key, text string
		found     bool
	}{
		{"x", "flj" + "_" + strings.Repeat("aB3", 10), true},
		{"x", "AKIA" + "IOSFODNN7EXAMPLE", true},
		{"x", "gh" + "p_" + strings.Repeat("a1B2", 9), true},
		{"x", "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIE", true},
		{"x", "-----BEGIN PRIVATE" + " KEY-----", true},
		{"x", "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", true},
		{"x", "postgres://amal:" + "hunter2" + "@db/flights", true},
		{"run", "python train.py --db postgres://amal:" + "hunter2" + "@db/x", true},
		{"run", "python train.py --db-password " + "Kx9w2LqPz", true},
		{"run", "python train.py --token=" + "8f14e45fceea167a5a36dedd4bea2543", true},
		{"x", "https://data.example.com/x?api_key=" + "8f14e45fceea167a5a36dedd4bea2543&v=1", true},
		{"db_password", "hunter2" + "hunter2", true},
		{"password", "Tr0ub4dor" + "&3", true},
		{"wandb_api_key", "8f14e45fceea167a5a36dedd4bea2543", true},
		{"client_secret", "wJalrXUtnFEMI" + "K7MDENGbPxRfiCYEXAMPLEKEY", true},
		{"token", "Zm9vYmFyYmF6" + "cXV4MTIzNDU2", true},

		{"db_password", "secret://DB_PASSWORD", false},
		{"DB", "env://DB_PASSWORD", false},
		{"DB", "file://db/password", false},
		{"x", "postgres://amal@db/flights", false},
		{"x", "postgres://amal:{password}@db/flights", false},
		{"x", "postgres://amal:$PW@db/flights", false},
		{"x", "http://127.0.0.1:7420/api?user=a@b", false},
		{"key", "machine", false},
		{"key", "flight_date", false},
		{"sort_key", "2024", false},
		{"primary_key", "customer_identification_number", false},
		{"max_tokens", "4096", false},
		{"tokenizer", "sentence-transformers/all-MiniLM-L6-v2", false},
		{"tokenizer", "bert-base-uncased", false},
		{"password_column", "user_password", false},
		{"secret_sauce", "gradient_boosting", false},
		{"monkey", "8f14e45fceea167a5a36dedd4bea2543", false},
		{"digest", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", false},
		{"run", "python train.py --trees {trees} --token {token} --key key", false},
		{"run", "python train.py --tokenizer all-MiniLM-L6-v2 --password-file etc/pw", false},
		{"doc", "The token is kept in the environment; see docs/security.md.", false},
		{"x", "-----BEGIN PUBLIC KEY-----", false},
		{"x", "flj_ tokens and ghp_ tokens", false},
	} {
		if got := secret.Literal(c.key, c.text); (got != "") != c.found {
			t.Errorf("%s: %.30q: %q, want found %v", c.key, c.text, got, c.found)
		}
	}
}

// The files that this repository ships hold none.
func TestOurOwnFilesHoldNone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../../demo/flights/falaj.yaml", "../e2e/testdata/tiny/falaj.yaml", "../e2e/testdata/tiny/tests/behaviour.yaml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(b), "\n") {
			key, value, _ := strings.Cut(line, ":")
			for k, text := range map[string]string{strings.TrimSpace(key): strings.TrimSpace(value), "": line} {
				if what := secret.Literal(k, text); what != "" {
					t.Errorf("%s:%d holds %s", name, n+1, what)
				}
			}
		}
	}
}
