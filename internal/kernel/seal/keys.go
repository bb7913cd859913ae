// Package seal keeps what must stay secret: a local keyset that wraps each project's data key, boxes that seal
// values and object keys under it, authenticated streams with random access, and keyed digests and signing keys.
// It is the only package that touches key material, so that nothing else can leak it, log it or use it twice.
//
// The hierarchy is: keyset on disk (tink AES256-GCM) -> data key of a project -> key of one object -> its bytes
// (DARE 2.0 through minio/sio). Every arrow binds associated data, so a value moved elsewhere does not open.
package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"falaj/internal/kernel/fault"
)

// fileName holds the whole keyset in one file, so that a crash can never leave half of it.
const fileName = "keyset.json"

// fileFormat is raised when the layout of the file changes; an older binary refuses a newer one.
const fileFormat = 1

// rootSize is the size in bytes of the secret that MAC keys and signing keys are derived from.
const rootSize = 32

// Keys is an opened local keyset. It is immutable after Open and safe for concurrent use.
type Keys struct {
	kek  tink.AEAD
	root []byte
}

// keyFile is what stands on disk: the key-encryption keyset and the root secret, in clear, in a 0600 file.
type keyFile struct {
	Format int             `json:"format"`
	KEK    json.RawMessage `json:"kek"`
	Root   []byte          `json:"root"`
}

// Open reads the keyset in dir, and creates folder (0700) and keyset (0600) when dir is missing or empty.
// It refuses a folder or file that others can read, that another user owns, or that a newer falaj wrote.
// A folder that holds other files but no keyset is refused too: a fresh keyset there would hide a lost one.
func Open(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keys folder %s cannot be created.", dir),
			"Give --keys a folder that this user may write.")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keys folder %s cannot be opened.", dir),
			"Give --keys a folder that this user owns.")
	}
	defer root.Close()
	if err := private(root, ".", dir, 0o700); err != nil {
		return nil, err
	}
	data, err := root.ReadFile(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = create(root, dir); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keyset in %s cannot be read.", dir),
			"Check the owner and the mode (0600) of "+filepath.Join(dir, fileName)+".")
	}
	if err := private(root, fileName, filepath.Join(dir, fileName), 0o600); err != nil {
		return nil, err
	}
	return parse(data, dir)
}

// private refuses what others can reach: the keyset is only as safe as its folder.
func private(root *os.Root, name, shown string, want fs.FileMode) error {
	st, err := root.Stat(name)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("%s cannot be checked.", shown), "Check its owner and mode.")
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return fault.New(fault.Refused,
			fmt.Sprintf("%s is open to other users (mode %04o), so its keys are not secret.", shown, mode),
			fmt.Sprintf("Type: chmod %04o %s", want, shown))
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() && sys.Uid != 0 {
		return fault.New(fault.Refused, fmt.Sprintf("%s belongs to another user (uid %d).", shown, sys.Uid),
			fmt.Sprintf("Type: chown %d %s", os.Geteuid(), shown))
	}
	return nil
}

// create makes a fresh keyset and puts it in place with link(2), which never overwrites: of two first starts at
// the same time one wins and the other reads the winner's file.
func create(root *os.Root, dir string) ([]byte, error) {
	unavailable := func(err error) error {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("A new keyset cannot be written to %s.", dir),
			"Check free space and that this user may write there.")
	}
	if err := onlyOurs(root, dir); err != nil {
		return nil, err
	}
	data, err := generate()
	if err != nil {
		return nil, unavailable(err)
	}
	temp := fileName + "." + rand.Text()
	defer root.Remove(temp)
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, unavailable(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, unavailable(err)
	}
	if err := root.Link(temp, fileName); errors.Is(err, fs.ErrExist) {
		data, err = root.ReadFile(fileName)
		if err != nil {
			return nil, unavailable(err)
		}
	} else if err != nil {
		return nil, unavailable(err)
	}
	folder, err := root.Open(".")
	if err != nil {
		return nil, unavailable(err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return nil, unavailable(err)
	}
	return data, nil
}

// onlyOurs refuses to start a new keyset beside unknown files; left-overs of an interrupted creation are ours.
func onlyOurs(root *os.Root, dir string) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keys folder %s cannot be listed.", dir), "Check its owner and mode.")
	}
	for _, e := range entries {
		if !bytes.HasPrefix([]byte(e.Name()), []byte(fileName)) {
			return fault.New(fault.Refused,
				fmt.Sprintf("The keys folder %s holds %s but no %s: a new keyset could not open what an older one sealed.", dir, e.Name(), fileName),
				"Restore "+fileName+" from your backup, or name an empty folder with --keys.")
		}
	}
	return nil
}

func generate() ([]byte, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	var kek bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&kek)); err != nil {
		return nil, err
	}
	secret := make([]byte, rootSize)
	rand.Read(secret)
	return json.MarshalIndent(keyFile{Format: fileFormat, KEK: kek.Bytes(), Root: secret}, "", " ")
}

func parse(data []byte, dir string) (*Keys, error) {
	var file keyFile
	damaged := func(err error) error {
		return fault.Wrap(err, fault.Internal, fmt.Sprintf("The keyset in %s is damaged.", dir),
			"Restore "+fileName+" from your backup.")
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, damaged(errors.New("not valid JSON")) // the decoder's text could quote the file
	}
	if file.Format > fileFormat {
		return nil, fault.New(fault.Unsupported,
			fmt.Sprintf("The keyset in %s has format %d and this version knows %d.", dir, file.Format, fileFormat),
			"Start the newer falaj that wrote it.")
	}
	if file.Format < 1 || len(file.Root) != rootSize {
		return nil, damaged(errors.New("format or root secret missing"))
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(file.KEK)))
	if err != nil {
		return nil, damaged(errors.New("the key-encryption keyset does not parse"))
	}
	kek, err := aead.New(handle)
	if err != nil {
		return nil, damaged(errors.New("the key-encryption keyset is not usable"))
	}
	return &Keys{kek: kek, root: file.Root}, nil
}
