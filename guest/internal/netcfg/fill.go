package netcfg

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"vmsan/guest/internal/files"
	"vmsan/guest/internal/wire"
)

// Filling is something of the host's in the guest's memory: files that are shown at a place of the tree.
type Filling struct {
	Place string
	Shape string
	// Writable for whoever runs in the guest, as far as the modes of files permit.
	Writable bool
	// Mode of the directory, and whose group's it is.
	Mode uint32
	GID  uint32
}

// filled is what is shown at one place: a file system in memory in a directory of root's alone, so that no program of
// another user can put anything there, and no link at the place or above it leads the next writing elsewhere.
type filled struct {
	mu    sync.Mutex
	dir   string
	shown bool
}

// fillings are what is shown, by place. The zero value has none.
type fillings struct {
	mu sync.Mutex
	at map[string]*filled
}

func (s *fillings) find(place string) *filled {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[place] == nil {
		if s.at == nil {
			s.at = map[string]*filled{}
		}
		s.at[place] = &filled{}
	}
	return s.at[place]
}

// oneFile is the name of a single file in its directory.
const oneFile = "file"

// Fill has what the archive says be at a place. The first time something is mounted there; from then on what is written
// is what is shown, whatever has become of the path. An agent that is a process among others mounts nothing: it writes at the place.
func (c *Config) Fill(f Filling, archive io.Reader) error {
	if !c.System {
		return fillInPlace(f, archive)
	}
	v := c.fillings.find(f.Place)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dir == "" {
		dir, err := newMemory(f)
		if err != nil {
			return wire.Errorf(wire.CodeMount, "There is no memory for %.256q.", f.Place).Because(err)
		}
		v.dir = dir
	}
	all := v.dir + "/all"
	if err := fillWith(all, all+"/"+oneFile, f, archive); err != nil || v.shown {
		return err
	}
	if err := show(v.dir, f); err != nil {
		return wire.AsInfo(err, wire.CodeMount, "Nothing could be mounted on "+f.Place+".")
	}
	v.shown = true
	return nil
}

// newMemory is a directory with a file system in memory, "all".
func newMemory(f Filling) (string, error) {
	// Out of everybody's way, and there for as long as the guest runs.
	dir, err := os.MkdirTemp("/dev", ".vmsan-files-")
	if err != nil {
		return "", err
	}
	err = os.Mkdir(dir+"/all", 0o700)
	if err == nil {
		err = mountTmpfs(Mount{Mode: &f.Mode, GID: f.GID}, dir+"/all")
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// fillWith writes the archive into a directory, or into a file.
func fillWith(dir, file string, f Filling, archive io.Reader) error {
	switch f.Shape {
	case wire.FillFile:
		return files.Refill(file, archive)
	case wire.FillTree:
		return files.Replace(dir, archive)
	}
	return files.Exchange(dir, f.Mode, int(f.GID), archive)
}

func fillInPlace(f Filling, archive io.Reader) error {
	dir := f.Place
	if f.Shape == wire.FillFile {
		dir = filepath.Dir(f.Place)
	}
	if err := MakeDirectory(dir); err != nil {
		return wire.Errorf(wire.CodeMount, "%.256q cannot be a directory of the guest.", dir).Because(err)
	}
	return fillWith(dir, f.Place, f, archive)
}

// show mounts what is in dir at its place.
func show(dir string, f Filling) error {
	from := dir + "/all"
	if f.Shape == wire.FillFile {
		from += "/" + oneFile
	}
	if !f.Writable {
		// A mount is read-only by itself; one that is made of it is so, too.
		sealed := dir + "/shown"
		made := os.Mkdir
		if f.Shape == wire.FillFile {
			made = func(path string, mode os.FileMode) error { return os.WriteFile(path, nil, mode) }
		}
		if err := made(sealed, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := syscall.Mount(from, sealed, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
		if err := makeReadOnly(sealed); err != nil {
			return err
		}
		from = sealed
	}
	at, err := openPlace(f.Place, f.Shape == wire.FillFile)
	if err != nil {
		return wire.Errorf(wire.CodeMount, "%.256q cannot be a place of the guest's.", f.Place).Because(err)
	}
	defer func() { _ = syscall.Close(at) }() // nothing was written
	return syscall.Mount(from, "/proc/self/fd/"+strconv.Itoa(at), "", syscall.MS_BIND, "")
}
