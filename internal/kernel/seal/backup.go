package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/argon2"

	"falaj/internal/kernel/fault"
)

// BackupKey is the key of one part of one backup. Both are in its derivation, so a part that was moved to another place or
// another backup does not open. The identity of a backup must be fresh: a key is for one stream only.
func (k *Keys) BackupKey(backup, part string) ObjectKey {
	return ObjectKey{b: [32]byte(k.derive("backup", backup+"\x00"+part))}
}

// Existing opens the keyset in dir like Open, but never makes one: fault.NotFound when there is none.
func Existing(dir string) (*Keys, error) {
	if _, err := os.Lstat(filepath.Join(dir, fileName)); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(err, fault.NotFound, fmt.Sprintf("There is no keyset in %s.", dir), "Name the folder that holds "+fileName+" with --keys.")
	}
	return Open(dir)
}

// MinPassphrase is how many bytes a passphrase has at least: the file it protects may be guessed at for years.
const MinPassphrase = 12

// The cost of guessing a passphrase. What an envelope asks for is bounded, or a hostile one would take all memory.
const (
	envelopeTime   = 4
	envelopeMemory = 128 << 10 // KiB
	envelopeLanes  = 2
	mostTime       = 32
	mostMemory     = 1 << 20 // KiB
	envelopeFormat = 1
	domainEnvelope = "falaj/keys-envelope/1\x00"
)

// envelope is a keyset under a passphrase. ID names the keyset, so that a wrong envelope is told from a wrong passphrase.
type envelope struct {
	Format int    `json:"format"`
	ID     string `json:"keyset"`
	Time   uint32 `json:"argon2id_time"`
	Memory uint32 `json:"argon2id_memory_kib"`
	Lanes  uint8  `json:"argon2id_lanes"`
	Salt   []byte `json:"salt"`
	Sealed []byte `json:"sealed"`
}

func (e envelope) aead(passphrase string) (cipher.AEAD, error) {
	key := argon2.IDKey([]byte(passphrase), e.Salt, e.Time, e.Memory, e.Lanes, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Wrap gives the keyset of dir as JSON that opens with the passphrase only (argon2id, AES-256-GCM), about 1 KiB.
func Wrap(dir, passphrase string) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("The passphrase has %d characters; it needs %d.", len(passphrase), MinPassphrase), "Choose a longer one, for example five words, and keep it apart from the file.").At("passphrase")
	}
	keys, err := Existing(dir)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keyset in %s cannot be read.", dir), "Check its owner and mode.")
	}
	e := envelope{Format: envelopeFormat, ID: keys.ID(), Time: envelopeTime, Memory: envelopeMemory, Lanes: envelopeLanes, Salt: make([]byte, 16)}
	rand.Read(e.Salt) // never fails since Go 1.24
	a, err := e.aead(passphrase)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "The keyset could not be sealed.", "")
	}
	e.Sealed = a.Seal(nil, nil, data, []byte(domainEnvelope+e.ID))
	return json.Marshal(e)
}

// EnvelopeID is the keyset that an envelope says it holds; fault.Invalid when it is none.
func EnvelopeID(wrapped []byte) (string, error) {
	e, err := readEnvelope(wrapped)
	return e.ID, err
}

func readEnvelope(wrapped []byte) (e envelope, err error) {
	if err := json.Unmarshal(wrapped, &e); err != nil || e.ID == "" || len(e.Salt) < 16 || len(e.Sealed) == 0 {
		return e, fault.New(fault.Invalid, "This is no keyset under a passphrase.", "Make the backup again.").At("keys")
	}
	if e.Format > envelopeFormat || e.Time > mostTime || e.Memory > mostMemory || e.Time == 0 || e.Lanes == 0 {
		return e, fault.New(fault.Unsupported, "The keyset is under a passphrase in a form that this version does not know.", "Use the newer falaj that wrote it.").At("keys")
	}
	return e, nil
}

// Unwrap opens an envelope and gives the keyset with a function that writes it into a folder that holds none.
func Unwrap(wrapped []byte, passphrase string) (k *Keys, write func(dir string) error, err error) {
	e, err := readEnvelope(wrapped)
	if err != nil {
		return nil, nil, err
	}
	a, err := e.aead(passphrase)
	if err != nil {
		return nil, nil, fault.Wrap(err, fault.Internal, "The keyset could not be opened.", "")
	}
	data, err := a.Open(nil, nil, e.Sealed, []byte(domainEnvelope+e.ID))
	if err != nil {
		return nil, nil, fault.Wrap(ErrDamaged, fault.Refused, "The passphrase does not open the keyset of this backup.", "Type the passphrase that the backup was made with.")
	}
	if k, err = parse(data, "the backup"); err != nil {
		return nil, nil, err
	}
	return k, func(dir string) error { return writeKeyset(dir, data) }, nil
}

// writeKeyset puts a keyset where none is, durably: folder 0700, file 0600.
func writeKeyset(dir string, data []byte) error {
	unavailable := func(err error) error {
		return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keyset cannot be written to %s.", dir), "Name an empty folder that this user may write with --keys.")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return unavailable(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return unavailable(err)
	}
	defer root.Close()
	if err := private(root, ".", dir, 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(fileName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return unavailable(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(unavailable(err), root.Remove(fileName))
	}
	folder, err := root.Open(".")
	if err != nil {
		return unavailable(err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return unavailable(err)
	}
	return nil
}
