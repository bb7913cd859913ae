package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/api"
	"falaj/internal/app"
	"falaj/internal/backup"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

const keysWarning = `THE KEYS ARE NOT IN THIS FILE. Without the server's keys folder nobody can read it, you neither:
keep a copy of keyset.json apart from the data and from this file, or back up with --with-keys.`

func (e *env) backupCmd() *cobra.Command {
	var withKeys bool
	var region string
	var cfg app.Config
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the whole installation into one file while the server runs",
		Long: "Copy the whole installation into one file while the server runs: databases as of one instant, the prediction log's spool,\nand every stored file. Everything in it is encrypted under the server's keyset, which is NOT in it unless --with-keys.\n" +
			"\nWho may: admins (backup.create). Check a file: falaj backup verify FILE. Use it: falaj restore FILE --data DIR.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.BackupRequest
			if withKeys {
				wrapped, err := e.wrapKeys(cfg)
				if err != nil {
					return err
				}
				req.Keys = wrapped
			}
			return e.backup(cmd.Context(), args[0], region, req)
		},
	}
	c.Flags().BoolVar(&withKeys, "with-keys", false, "put the keyset in, under a passphrase that is asked for or read from stdin")
	c.Flags().StringVar(&region, "region", "", "where FILE will lie, such as ae: it must be the installation's")
	keyFlags(c, &cfg)
	c.AddCommand(e.verifyCmd())
	return c
}

func keyFlags(c *cobra.Command, cfg *app.Config) {
	c.Flags().StringVar(&cfg.Data, "data", "", "the server's data directory, to find its keys")
	c.Flags().StringVar(&cfg.Keys, "keys", "", "folder of the keyset (default DATA/keys)")
}

// keysFolder is where the server of this machine has its keys.
func keysFolder(cfg app.Config) (string, error) {
	cfg.Data = first(cfg.Data, os.Getenv("FALAJ_DATA"))
	cfg.Keys = first(cfg.Keys, os.Getenv("FALAJ_KEYS"))
	full, err := cfg.Complete()
	return full.Keys, err
}

// wrapKeys reads the keyset on this machine: the server gives no key away, to nobody.
func (e *env) wrapKeys(cfg app.Config) ([]byte, error) {
	dir, err := keysFolder(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := seal.Existing(dir); err != nil {
		return nil, err
	}
	prompts := []string{"Passphrase for the keys in the backup: "}
	if isTerminal(e.err) && e.fromTerminal() {
		prompts = append(prompts, "The same again: ")
	}
	words, err := e.secrets(prompts...)
	if err != nil {
		return nil, err
	}
	if len(words) == 2 && words[0] != words[1] {
		return nil, fault.New(fault.Invalid, "The two passphrases differ.", "Type the command again.")
	}
	return seal.Wrap(dir, words[0])
}

func (e *env) fromTerminal() bool {
	f, ok := e.in.(*os.File)
	return ok && isTerminal(f)
}

// secrets asks for words that are not shown.
func (e *env) secrets(prompts ...string) ([]string, error) {
	nobody := "-"
	words, err := e.ask(&nobody, prompts...)
	if fault.Is(err, fault.Invalid) {
		return nil, fault.New(fault.Invalid, "No passphrase was given.", "Run the command in a terminal, or pipe the passphrase into it as one line.")
	}
	return words, err
}

// backup writes the stream to a file beside FILE, checks it on the way, and gives it its name when it is whole.
func (e *env) backup(ctx context.Context, path, region string, req api.BackupRequest) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fault.New(fault.Exists, path+" exists already.", "A backup never overwrites: name another file.")
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".partial-*") // 0600
	if err != nil {
		return fault.Wrap(err, fault.Invalid, path+" cannot be written.", "Name a file in a folder that you may write.")
	}
	defer func() {
		if err != nil {
			_ = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}()
	resp, err := e.client().stream(ctx, "/backups?region="+url.QueryEscape(region), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tools, err := app.BackupTools()
	if err != nil {
		return err
	}
	size, _ := strconv.ParseInt(resp.Header.Get(api.BackupSize), 10, 64) // 0: unknown
	p := e.carry(size)
	rep, err := backup.Verify(ctx, tools, io.TeeReader(resp.Body, io.MultiWriter(f, p)), nil)
	p.done()
	if err != nil {
		return broken(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fault.Wrap(err, fault.Unavailable, path+" could not be written.", "Free space there, then try again.")
	}
	if err := os.Link(f.Name(), path); err != nil { // never over another file
		if !errors.Is(err, fs.ErrExist) {
			err = os.Rename(f.Name(), path)
		}
		if err != nil {
			return fault.Wrap(err, fault.Exists, path+" could not get its name.", "Name another file.")
		}
	} else if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if e.json {
		if err := printJSON(e.out, rep); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.out, "%s\t%s\t%d parts\t%s\n", path, rep.Manifest.ID, rep.Parts, bytesOf(rep.Bytes))
	}
	e.say("Ledger at row %d %s; recorded as backup.create with digest %s.", rep.Manifest.Ledger.Seq, short(rep.Manifest.Ledger.Hash), short(rep.Digest))
	if req.Keys == nil {
		e.say("%s", e.paint(yellow, keysWarning))
	} else {
		e.say("%s", e.paint(yellow, "The keys are in this file, under your passphrase. Whoever has both reads everything; without the passphrase they do not open."))
	}
	return nil
}

// broken says of a stream that broke off what that means here.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fault.Wrap(err, fault.Unavailable, "The server broke off in the middle of the backup; no file was made.", "See the server's log, then type the command again.")
	}
	return err
}

func (e *env) verifyCmd() *cobra.Command {
	var cfg app.Config
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check every byte of a backup; with the keys, its databases too",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var keys *seal.Keys
			dir, err := keysFolder(cfg)
			if err == nil {
				keys, err = seal.Existing(dir)
			}
			if err != nil && (cfg.Keys != "" || cfg.Data != "") { // without either the keys of this machine are used where there are some
				return err
			}
			return e.verify(cmd.Context(), args[0], keys, cfg.Keys != "" || cfg.Data != "")
		},
	}
	keyFlags(c, &cfg)
	return c
}

func (e *env) verify(ctx context.Context, path string, keys *seal.Keys, named bool) error {
	f, err := openBackup(path)
	if err != nil {
		return err
	}
	defer f.Close()
	tools, err := app.BackupTools()
	if err != nil {
		return err
	}
	p := e.carry(sizeOf(f))
	rep, err := backup.Verify(ctx, tools, io.TeeReader(f, p), keys)
	p.done()
	if err != nil && !named && keys != nil && rep.Manifest.ID != "" && rep.Manifest.Keyset != keys.ID() {
		return e.verify(ctx, path, nil, false) // the keys of this machine belong to another installation
	}
	if err != nil {
		return err
	}
	if e.json {
		return printJSON(e.out, rep)
	}
	m := rep.Manifest
	fmt.Fprintf(e.out, "whole: %d parts, %s; made %s by falaj %s, schema %d, ledger row %d %s\n", rep.Parts, bytesOf(rep.Bytes), when(m.Created), m.Falaj, m.Schema, m.Ledger.Seq, short(m.Ledger.Hash))
	if rep.Opened {
		e.say("Opened with keyset %s: databases whole, ledger head and all %d stored files as the database names them.", m.Keyset, m.Blobs)
	} else {
		e.say("%s", e.paint(yellow, "Not opened: every digest fits, but whether the keys open it was not checked. Give --keys DIR."))
	}
	return nil
}

func (e *env) restoreCmd() *cobra.Command {
	var data, keys string
	c := &cobra.Command{
		Use:   "restore FILE --data DIR",
		Short: "Unpack a backup into an empty folder, for `falaj server --data DIR`",
		Long:  "Unpack a backup into a folder that is missing or empty. Every digest is checked on the way; the folder has its content at the\nend at once, or stays as it was. The keyset is taken from --keys, or from the file where it was made --with-keys (its passphrase is\nasked for, or read from stdin).",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "" {
				return usage{errors.New("required flag --data is missing: the folder to restore into")}
			}
			return e.restore(cmd.Context(), args[0], data, keys)
		},
	}
	c.Flags().StringVar(&data, "data", "", "folder to restore into, missing or empty")
	c.Flags().StringVar(&keys, "keys", "", "folder of the keyset; where it holds none, the file's keyset is put there")
	return c
}

func (e *env) restore(ctx context.Context, path, data, keys string) error {
	f, err := openBackup(path)
	if err != nil {
		return err
	}
	defer f.Close()
	tools, err := app.BackupTools()
	if err != nil {
		return err
	}
	opt := backup.RestoreOptions{Passphrase: func() (string, error) {
		words, err := e.secrets("Passphrase of the keys in the backup: ")
		if err != nil {
			return "", err
		}
		return words[0], nil
	}}
	if opt.Data, err = filepath.Abs(data); err == nil && keys != "" {
		opt.Keys, err = filepath.Abs(keys)
	}
	if err != nil {
		return err
	}
	p := e.carry(sizeOf(f))
	out, err := backup.Restore(ctx, tools, io.TeeReader(f, p), opt)
	p.done()
	if err != nil {
		return err
	}
	if e.json {
		return printJSON(e.out, out)
	}
	m := out.Manifest
	fmt.Fprintf(e.out, "restored\t%s\t%s\tledger row %d\n", opt.Data, m.ID, m.Ledger.Seq)
	next := "falaj server --data " + opt.Data
	if out.Keys != filepath.Join(opt.Data, "keys") {
		next += " --keys " + out.Keys
	}
	e.say("The installation as of %s. Python runtimes are not in a backup: `falaj run` makes them again.\nStop the old server before this one is used, or two go on from the same state. Next: %s", when(m.Created), next)
	return nil
}

func openBackup(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(err, fault.NotFound, "The backup "+path+" cannot be read.", "Check the name and that you may read it.")
	}
	return f, nil
}

func sizeOf(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// carried counts what passes: one line on a terminal, else a plain line every ten seconds.
type carried struct {
	e           *env
	total, n    int64
	begun, last time.Time
	every       time.Duration
	shown       bool
}

func (e *env) carry(total int64) *carried {
	p := &carried{e: e, total: total, begun: time.Now(), last: time.Now(), every: 10 * time.Second}
	if isTerminal(e.err) {
		p.every = 200 * time.Millisecond
	}
	return p
}

func (p *carried) Write(b []byte) (int, error) {
	p.n += int64(len(b))
	if now := time.Now(); now.Sub(p.last) >= p.every {
		p.last = now
		rate := float64(p.n) / now.Sub(p.begun).Seconds()
		line := fmt.Sprintf("%s of %s, %s/s", bytesOf(p.n), bytesOf(max(p.total, p.n)), bytesOf(int64(rate)))
		if left := p.total - p.n; left > 0 && rate > 0 {
			line += fmt.Sprintf(", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
		}
		if isTerminal(p.e.err) {
			fmt.Fprintf(p.e.err, "\r\x1b[K%s", line)
			p.shown = true
		} else {
			p.e.say("%s", line)
		}
	}
	return len(b), nil
}

func (p *carried) done() {
	if p.shown {
		fmt.Fprint(p.e.err, "\r\x1b[K")
	}
}

func bytesOf(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}
