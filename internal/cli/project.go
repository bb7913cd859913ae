package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
	"falaj/internal/plan"
	"falaj/internal/plan/pipeline"
	"falaj/internal/training"
)

// folder is a project on this machine: falaj.yaml, the texts it names, and its data files.
type folder struct {
	dir     string
	root    *os.Root
	project *plan.Project
	yaml    string
	texts   []string            // everything but data files, sorted
	sources map[string][]string // dataset -> data files
	commit  string
	dirty   bool
}

// openFolder reads the project whose falaj.yaml is file. With data, patterns of data files must match something.
func openFolder(file string, data bool) (*folder, error) {
	dir := filepath.Dir(file)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(err, fault.NotFound, "There is no folder "+dir+".", "Run it in the project's folder, or name the file with -f.")
	}
	f := &folder{dir: dir, root: root, sources: map[string][]string{}}
	var opts []plan.Option
	if !data {
		opts = append(opts, plan.SourcesElsewhere())
	}
	p, refs, err := plan.Load(root.FS(), filepath.Base(file), opts...)
	if err != nil {
		root.Close()
		return nil, err
	}
	f.project = p
	b, err := root.ReadFile(filepath.Base(file))
	if err != nil {
		root.Close()
		return nil, err
	}
	f.yaml = string(b)
	seen := map[string]bool{}
	for _, r := range refs {
		for _, name := range r.Files {
			if r.Role == "source" {
				_, rest, _ := strings.Cut(r.Key, "datasets.")
				dataset, _, _ := strings.Cut(rest, ".")
				f.sources[dataset] = append(f.sources[dataset], name)
				continue
			}
			if err := f.collect(name, seen); err != nil {
				root.Close()
				return nil, err
			}
		}
	}
	f.commit, f.dirty, err = training.GitState(dir)
	if err != nil {
		f.commit, f.dirty = "", false // no Git here: the release says so by having no commit
	}
	return f, nil
}

// collect adds a file, or all files of a folder, leaving caches out.
func (f *folder) collect(name string, seen map[string]bool) error {
	return fs.WalkDir(f.root.FS(), path.Clean(name), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == "__pycache__" || base == ".git" || base == ".pytest_cache" {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && !seen[p] {
			seen[p] = true
			f.texts = append(f.texts, p)
		}
		return nil
	})
}

func (f *folder) close() { f.root.Close() }

func (f *folder) digest(name string) (string, int64, error) {
	r, err := f.root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), n, err
}

// send uploads a file unless the server has it, and returns its digest.
func (f *folder) send(ctx context.Context, c *client, name string) (string, error) {
	digest, size, err := f.digest(name)
	if err != nil {
		return "", fault.Wrap(err, fault.Invalid, "The file "+name+" could not be read.", "")
	}
	target := api.Base + in(f.project.Name, "blobs", digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.base+target, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if c.token == "" {
		req.Header.Del("Authorization")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", c.unreachable(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return digest, nil
	}
	r, err := f.root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", err
	}
	defer r.Close()
	_ = size
	return digest, c.send(ctx, http.MethodPut, target, "application/octet-stream", r, nil)
}

// bundle uploads the texts and describes the project for plan and apply.
func (f *folder) bundle(ctx context.Context, c *client) (map[string]any, error) {
	files := map[string]string{}
	for _, name := range f.texts {
		d, err := f.send(ctx, c, name)
		if err != nil {
			return nil, err
		}
		files[name] = d
	}
	return map[string]any{"yaml": f.yaml, "files": files, "commit": f.commit, "dirty": f.dirty}, nil
}

// upload sends the data files and lists them by dataset.
func (f *folder) upload(ctx context.Context, c *client, say func(string)) (map[string][]pipeline.SourceFile, error) {
	out := map[string][]pipeline.SourceFile{}
	for dataset, names := range f.sources {
		for _, name := range names {
			say(name)
			d, err := f.send(ctx, c, name)
			if err != nil {
				return nil, err
			}
			out[dataset] = append(out[dataset], pipeline.SourceFile{Name: path.Base(name), Digest: d})
		}
	}
	return out, nil
}

func (e *env) planCmd() *cobra.Command {
	var file string
	c := &cobra.Command{Use: "plan", Short: "Show what apply would change, and which models it reaches (exit 8: changes)", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		a, _, err := e.sendProject(cmd.Context(), file, "plan")
		if err != nil {
			return err
		}
		if err := e.showDiff(a.Changes); err != nil {
			return err
		}
		if len(a.Changes) > 0 {
			return exitCode(fault.Pending.Exit())
		}
		return nil
	}}
	c.Flags().StringVarP(&file, "file", "f", "falaj.yaml", "the project file")
	return c
}

func (e *env) applyCmd() *cobra.Command {
	var file string
	var dry bool
	c := &cobra.Command{Use: "apply", Short: "Make the project what its files say", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		verb := "apply"
		if dry {
			verb = "plan"
		}
		a, name, err := e.sendProject(cmd.Context(), file, verb)
		if err != nil {
			return err
		}
		if err := e.showDiff(a.Changes); err != nil {
			return err
		}
		if !dry {
			e.say("%s is applied (%d). Next: falaj run", name, a.Seq)
		}
		return nil
	}}
	c.Flags().StringVarP(&file, "file", "f", "falaj.yaml", "the project file")
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	return c
}

func (e *env) sendProject(ctx context.Context, file, verb string) (api.Applied, string, error) {
	var a api.Applied
	f, err := openFolder(file, false)
	if err != nil {
		return a, "", err
	}
	defer f.close()
	c := e.client()
	if verb == "apply" {
		// The project must exist before its texts can be uploaded into it.
		if err := c.call(ctx, "POST", "/projects", map[string]any{"name": f.project.Name, "residency": f.project.Residency}, nil); err != nil && !fault.Is(err, fault.Denied) {
			return a, "", err
		}
	}
	b, err := f.bundle(ctx, c)
	if err != nil {
		return a, "", err
	}
	return a, f.project.Name, c.call(ctx, "POST", in(f.project.Name, verb), b, &a)
}

func (e *env) showDiff(list []pipeline.Difference) error {
	if e.json {
		return printJSON(e.out, list)
	}
	if len(list) == 0 {
		e.say("Nothing changes.")
		return nil
	}
	marks := map[string]string{"add": e.paint(green, "+"), "change": e.paint(yellow, "~"), "remove": e.paint(red, "-")}
	for _, d := range list {
		line := fmt.Sprintf("%s %s %s", marks[d.Verb], d.Kind, d.Name)
		if len(d.What) > 0 {
			line += " (" + strings.Join(d.What, ", ") + ")"
		}
		if len(d.Models) > 0 && d.Kind != "model" {
			line += "  reaches " + strings.Join(d.Models, ", ")
		}
		if _, err := fmt.Fprintln(e.out, line); err != nil {
			return err
		}
	}
	return nil
}

func query(kv ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i+1] != "" {
			q.Set(kv[i], kv[i+1])
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}
