package mlflow_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"falaj/internal/kernel/pki"
	"falaj/internal/store/sqlite"
)

// clear seals nothing: what a CA's key is worth is tested elsewhere.
type clear struct{}

func (clear) Seal(plain, _ []byte) ([]byte, error)  { return plain, nil }
func (clear) Open(sealed, _ []byte) ([]byte, error) { return sealed, nil }

// What a client does that does not know the CA, and one that knows it by MLflow's own setting alone.
const (
	stranger = `import mlflow
try:
    mlflow.create_experiment("x")
except Exception as e:
    assert "CERTIFICATE_VERIFY_FAILED" in str(e), e
    print("DONE")
`
	friend = `import mlflow
with mlflow.start_run() as r:
    mlflow.log_metric("x", 1)
    mlflow.log_text("hello", "a.txt")
assert mlflow.artifacts.load_text(f"runs:/{r.info.run_id}/a.txt") == "hello"
print("DONE")
`
)

// TestRealClientsByTLS gives the unmodified clients falaj's own CA the way MLflow's documentation says, and lets them do
// an ordinary day by https. Without it they refuse the server. Parts of an upload (off by default in the client) are sent
// without MLflow's setting, so the whole day needs REQUESTS_CA_BUNDLE too.
func TestRealClientsByTLS(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.12.0", "3.17.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "falaj.db"))
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, d)
			ca, err := pki.OpenAuthority(filepath.Join(t.TempDir(), "ca.json"), clear{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := ca.Leaf([]string{"127.0.0.1"}, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: s.Config.Handler, ReadHeaderTimeout: time.Minute}
			go func() { _ = srv.Serve(tls.NewListener(l, pki.Config(leaf.Certificate))) }()
			t.Cleanup(func() { srv.Close() })
			file := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(file, ca.PEM(), 0o644); err != nil {
				t.Fatal(err)
			}
			python := environment(t, append(others(), "mlflow-skinny=="+version))
			uri := "MLFLOW_TRACKING_URI=https://" + l.Addr().String() + "/p/flights"
			script := func(name, text string) string {
				path := filepath.Join(t.TempDir(), name)
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			env := []string{uri, "MLFLOW_TRACKING_TOKEN=" + s.token}
			run(t, python, env, script("stranger.py", stranger))
			env = append(env, "MLFLOW_TRACKING_SERVER_CERT_PATH="+file)
			run(t, python, env, script("friend.py", friend))
			run(t, python, append(env, "REQUESTS_CA_BUNDLE="+file), "testdata/client.py")
		})
	}
}
