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

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"falaj/internal/kernel/fault"
)

// Rotation says what Rotate did: the key that wraps now, those that no longer open anything, and whether it went on
// with a rotation that was interrupted.
type Rotation struct {
	Key      uint32
	Disabled []uint32
	Resumed  bool
}

// Rotate asks check whether the keyset in dir is the right one, gives it a new key-encryption key, lets rewrap wrap every data key again with it (Keys.Rewrap),
// and then disables the older keys. The root secret stays: digests, pseudonyms and signatures keep their meaning.
//
// The keyset is written whole before rewrap, with both keys enabled, and after it. A crash anywhere leaves a keyset that
// opens everything; the next Rotate then takes up the new key that there is instead of making another. rewrap must be
// durable when it returns nil. Nobody else may write the folder or make data keys meanwhile.
func Rotate(dir string, check, rewrap func(*Keys) error) (Rotation, error) {
	var done Rotation
	root, err := os.OpenRoot(dir)
	if err != nil {
		return done, fault.Wrap(err, fault.NotFound, fmt.Sprintf("There is no keys folder %s.", dir), "Name the folder of the server's keyset: --data DIR, or --keys DIR.")
	}
	defer root.Close()
	data, err := root.ReadFile(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return done, fault.New(fault.NotFound, fmt.Sprintf("The keys folder %s holds no %s.", dir, fileName), "Name the folder of the server's keyset: --data DIR, or --keys DIR.")
	}
	if err != nil {
		return done, fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keyset in %s cannot be read.", dir), "Check the owner and the mode (0600) of "+filepath.Join(dir, fileName)+".")
	}
	present, err := Open(dir) // owner, modes, format
	if err == nil {
		err = check(present)
	}
	if err != nil {
		return done, err
	}
	file, m, err := manager(data, dir)
	if err != nil {
		return done, err
	}
	enabled, err := enabledKeys(m)
	if err != nil {
		return done, err
	}
	if done.Resumed = len(enabled) > 1; !done.Resumed {
		next, err := m.Add(aead.AES256GCMKeyTemplate())
		if err == nil {
			err = m.SetPrimary(next)
		}
		if err == nil {
			data, err = file.with(m)
		}
		if err == nil {
			err = replace(root, data)
		}
		if err != nil {
			return done, unwritable(err, dir)
		}
	}
	keys, err := parse(data, dir)
	if err != nil {
		return done, err
	}
	if err := rewrap(keys); err != nil {
		return done, err
	}
	primary, err := primaryKey(m)
	if err != nil {
		return done, err
	}
	if enabled, err = enabledKeys(m); err != nil {
		return done, err
	}
	for _, id := range enabled {
		if id == primary {
			continue
		}
		if err := m.Disable(id); err != nil {
			return done, unwritable(err, dir)
		}
		done.Disabled = append(done.Disabled, id)
	}
	if data, err = file.with(m); err == nil {
		err = replace(root, data)
	}
	done.Key = primary
	if err != nil {
		return done, unwritable(err, dir)
	}
	return done, sweep(root, dir)
}

// sweep removes what a crash left beside the keyset: parts of it are key material too.
func sweep(root *os.Root, dir string) error {
	left, err := fs.Glob(root.FS(), fileName+".*")
	for _, name := range left {
		err = errors.Join(err, root.Remove(name))
	}
	return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keys are rotated, but what an earlier crash left in %s could not be removed.", dir), "Remove "+fileName+".* there by hand.")
}

// Rewrap opens a wrapped data key with whichever key of the keyset sealed it and seals it again with the present one.
// The data key itself stays, so nothing that it sealed is touched.
func (k *Keys) Rewrap(wrapped []byte, aad string) ([]byte, error) {
	handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(wrapped)), k.kek, []byte(domainDataKey+aad))
	if err != nil {
		return nil, damaged("data key")
	}
	var buf bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&buf), k.kek, []byte(domainDataKey+aad)); err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A data key could not be wrapped.", "")
	}
	return buf.Bytes(), nil
}

func unwritable(err error, dir string) error {
	return fault.Wrap(err, fault.Unavailable, fmt.Sprintf("The keyset in %s could not be written anew; nothing is lost by that.", dir), "Check free space and that this user may write there, then run falaj keys rotate again.")
}

func manager(data []byte, dir string) (keyFile, *keyset.Manager, error) {
	var file keyFile
	handle, err := (*keyset.Handle)(nil), json.Unmarshal(data, &file)
	if err == nil {
		handle, err = insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(file.KEK)))
	}
	if err != nil { // Open has read it a moment ago
		return file, nil, fault.New(fault.Internal, fmt.Sprintf("The keyset in %s is damaged.", dir), "Restore "+fileName+" from your backup.")
	}
	return file, keyset.NewManagerFromHandle(handle), nil
}

func enabledKeys(m *keyset.Manager) (ids []uint32, err error) {
	h, err := m.Handle()
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "The keyset is not usable.", "")
	}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, "The keyset is not usable.", "")
		}
		if e.KeyStatus() == keyset.Enabled {
			ids = append(ids, e.KeyID())
		}
	}
	return ids, nil
}

func primaryKey(m *keyset.Manager) (uint32, error) {
	h, err := m.Handle()
	if err == nil {
		var e *keyset.Entry
		if e, err = h.Primary(); err == nil {
			return e.KeyID(), nil
		}
	}
	return 0, fault.Wrap(err, fault.Internal, "The keyset is not usable.", "")
}

// with is the file with the manager's keys.
func (f keyFile) with(m *keyset.Manager) ([]byte, error) {
	handle, err := m.Handle()
	if err != nil {
		return nil, err
	}
	var kek bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&kek)); err != nil {
		return nil, err
	}
	f.KEK = kek.Bytes()
	return json.MarshalIndent(f, "", " ")
}

// replace puts a new keyset in the old one's place: durable before it is visible, so that a crash leaves one or the other.
func replace(root *os.Root, data []byte) error {
	temp := fileName + "." + rand.Text()
	defer root.Remove(temp)
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := root.Rename(temp, fileName); err != nil {
		return err
	}
	folder, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
