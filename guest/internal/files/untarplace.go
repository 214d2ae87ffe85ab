package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"vmsan/guest/internal/wire"
)

// check finds what is in the way before anything is moved.
func (u *untarrer) check(from, to *os.File, prefix string, depth int) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return fileError(err, "The extracted files cannot be listed.")
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return fileError(err, "The extracted files cannot be listed.")
	}
	for _, n := range names {
		old, err := os.Lstat(at(to, n))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fileError(err, "%.256q cannot be looked at.", u.opts.Path+"/"+prefix+n)
		}
		fresh, err := os.Lstat(at(from, n))
		if err != nil {
			return fileError(err, "The extracted files cannot be listed.")
		}
		if fresh.IsDir() != old.IsDir() {
			why, what := "a directory is in the way of a file", syscall.EISDIR
			if fresh.IsDir() {
				why, what = "something that is no directory is in the way of a directory", syscall.ENOTDIR
			}
			return wire.Errorf(wire.CodeFile, "%.256q cannot be replaced.", u.opts.Path+"/"+prefix+n).
				Because(fmt.Sprintf("%s (%s)", why, what.Error())).Remedy("Remove it first, or choose another destination.")
		}
		if fresh.IsDir() {
			if err := u.both(from, to, n, func(f, t *os.File) error { return u.check(f, t, prefix+n+"/", depth+1) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *untarrer) both(from, to *os.File, name string, do func(f, t *os.File) error) error {
	f, err := openDir(from, name)
	if err != nil {
		return fileError(err, "The extracted files cannot be listed.")
	}
	defer f.Close()
	t, err := openDir(to, name)
	if err != nil {
		return fileError(err, "The directory %.256q below %.256q cannot be used.", name, u.opts.Path)
	}
	defer t.Close()
	return do(f, t)
}

// place moves everything to its final name.
func (u *untarrer) place(from, to *os.File, prefix string) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return fileError(err, "The extracted files cannot be listed.")
	}
	for _, n := range names {
		old, lerr := os.Lstat(at(to, n))
		if lerr == nil && old.IsDir() {
			// A directory that is there keeps its mode and time.
			delete(u.later, prefix+n)
			if err := u.both(from, to, n, func(f, t *os.File) error { return u.place(f, t, prefix+n+"/") }); err != nil {
				return err
			}
			continue
		}
		if err := move(from, to, n); err != nil {
			return fileError(err, "%.256q could not be put into place.", u.opts.Path+"/"+prefix+n)
		}
	}
	return nil
}

// move gives an entry its final name. A volume or a shared directory below the target is a file
// system of its own, into which nothing is renamed: the entry is copied there first, into a directory of
// the agent's alone, since whoever may write beside it could put a link in the copy's place.
func move(from, to *os.File, name string) (err error) {
	if err = os.Rename(at(from, name), at(to, name)); !errors.Is(err, syscall.EXDEV) {
		return err
	}
	aside := asideName()
	if err = os.Mkdir(at(to, aside), 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(to, aside)) }()
	d, err := openDir(to, aside)
	if err != nil {
		return err
	}
	defer d.Close()
	c := &treeCopier{links: map[[2]uint64]string{}, root: d}
	if err = c.copy(from, name, d, name, name, 0); err != nil {
		return err
	}
	return os.Rename(at(d, name), at(to, name))
}
