package pipeline

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// unopened stands in a step's cache key for a secret that could not be opened; the step then fails and keeps nothing.
const unopened = "not opened"

// secretParts are the references of a step with the versions that they have now. Versions say nothing about values.
func (s *Service) secretParts(ctx context.Context, project string, refs map[string]string) parts {
	out := parts{}
	for name, ref := range refs {
		out["secret "+name] = unopened
		if v, err := s.Secrets.Open(ctx, project, ref); err == nil {
			out["secret "+name] = ref + " " + v.Version
		}
	}
	return out
}

// opened are a job's secrets: files of a room of its own in memory, and their values, to hide them in its log.
type opened struct {
	room   *data.Room
	values [][]byte
}

// inputs tells the job where its secrets are, and lists what it may read for that.
func (o opened) inputs(env map[string]string) []string {
	if o.room == nil {
		return nil
	}
	env["FALAJ_SECRETS"] = o.room.Dir
	return []string{o.room.Dir}
}

// Close wipes the room.
func (o opened) Close() error { return o.room.Close() }

// openSecrets opens the references of a step that begins and lays them out. With want, the step's cache key, the versions
// must be those of the key: a result must not be kept under another version than it was made with.
func (s *Service) openSecrets(ctx context.Context, project string, refs map[string]string, want parts) (out opened, err error) {
	if len(refs) == 0 {
		return out, nil
	}
	files, size := map[string][]byte{}, int64(0)
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		v, err := s.Secrets.Open(ctx, project, refs[name])
		if err != nil {
			return out, err
		}
		if want != nil && want["secret "+name] != refs[name]+" "+v.Version {
			return out, fault.New(fault.Conflict, fmt.Sprintf("The secret %s was set anew while the step began.", name), "falaj run again; what is finished is cached.")
		}
		files[name] = v.Bytes()
		out.values = append(out.values, v.Bytes())
		size += int64(len(v.Bytes()))
	}
	if out.room, err = s.Rooms.Room(size + 1<<20); err != nil {
		return opened{}, err
	}
	if err := lay(out.room, files); err != nil {
		out.room.Close()
		return opened{}, err
	}
	return out, nil
}

// lay writes the files, readable for their owner alone, and only where they reach no disk.
func lay(room *data.Room, files map[string][]byte) error {
	const what, next = "The job's secrets could not be laid out.", "Free memory: secrets are only put into /dev/shm, never on a disk."
	var st unix.Statfs_t
	if err := unix.Statfs(room.Dir, &st); err != nil {
		return fault.Wrap(err, fault.Unavailable, what, next)
	}
	if kind := int64(st.Type); kind != unix.TMPFS_MAGIC && kind != unix.RAMFS_MAGIC {
		return fault.New(fault.Unavailable, "The job's secrets could not be laid out: the room for them is not in memory.", next)
	}
	root, err := os.OpenRoot(room.Dir)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, what, next)
	}
	defer root.Close()
	for name, b := range files {
		if err := one(root, name, b); err != nil {
			return fault.Wrap(err, fault.Unavailable, what, next)
		}
	}
	return nil
}

func one(root *os.Root, name string, b []byte) error {
	f, err := root.OpenFile(filepath.Base(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(0o400))
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
