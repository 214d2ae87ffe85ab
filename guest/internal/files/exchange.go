package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"vmsan/guest/internal/wire"
)

const (
	// exchanged is the link to a volume's files as they are now.
	exchanged = "..data"
	// nextExchanged is the next one, before it takes that one's place.
	nextExchanged = "..data_tmp"
)

// isState: the name is that of a directory that the link leads to, as "..2026_01_31_12_00_00.1234567890". Not by a regular
// expression: one that is compiled at every start is a fortieth of an emulated boot.
func isState(name string) bool {
	rest, isHidden := strings.CutPrefix(name, "..")
	if !isHidden || len(rest) < len("2006_") || rest[4] != '_' || strings.Trim(rest[:4], "0123456789") != "" {
		return false
	}
	return len(rest) > len("2006_") && strings.Trim(rest[5:], "0123456789_.") == ""
}

// Exchange has a directory be what the archive says, at one instant, as kubelets have it: files lie in a directory of their
// own, "..data" is a link to that one, and each name is a link through it. mode and gid are that directory's.
func Exchange(dir string, mode uint32, gid int, r io.Reader) (err error) {
	fail := func(err error) error { return fileError(err, "The files of %.256q cannot be exchanged.", dir) }
	there, err := os.ReadDir(dir)
	if err != nil {
		return fail(err)
	}
	state := time.Now().UTC().Format("..2006_01_02_15_04_05.") + fmt.Sprint(rand.Int64N(9e9)+1e9)
	if err := os.Mkdir(dir+"/"+state, 0o700); err != nil {
		return fail(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir+"/"+state))
		}
	}()
	if err := Untar(UntarOptions{Path: dir + "/" + state, Owners: true}, r); err != nil {
		return err
	}
	// The owner first: its change clears bits of the mode.
	if err := errors.Join(os.Chown(dir+"/"+state, -1, gid), syscall.Chmod(dir+"/"+state, mode)); err != nil {
		return fail(err)
	}
	entries, err := os.ReadDir(dir + "/" + state)
	if err != nil {
		return fail(err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
		// Those that are new lead nowhere until the exchange.
		if err := os.Symlink(exchanged+"/"+e.Name(), dir+"/"+e.Name()); err != nil && !errors.Is(err, os.ErrExist) {
			return fail(err)
		}
	}
	if err := os.Remove(dir + "/" + nextExchanged); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if err := os.Symlink(state, dir+"/"+nextExchanged); err != nil {
		return fail(err)
	}
	if err := os.Rename(dir+"/"+nextExchanged, dir+"/"+exchanged); err != nil {
		return fail(err)
	}
	for _, e := range there {
		name := e.Name()
		to, _ := os.Readlink(dir + "/" + name) // empty where it is no link
		left := to == exchanged+"/"+name && !names[name]
		if left || e.IsDir() && isState(name) {
			if err := os.RemoveAll(dir + "/" + name); err != nil {
				return fail(err)
			}
		}
	}
	return nil
}

// Replace has a directory hold what the archive says, and nothing else.
func Replace(dir string, r io.Reader) error {
	there, err := os.ReadDir(dir)
	for _, e := range there {
		err = errors.Join(err, os.RemoveAll(dir+"/"+e.Name()))
	}
	if err != nil {
		return fileError(err, "The files of %.256q cannot be replaced.", dir)
	}
	return Untar(UntarOptions{Path: dir, Owners: true}, r)
}

// Refill has a file hold what the archive's only entry says: itself, since something may be mounted of it.
func Refill(path string, r io.Reader) error {
	t := tar.NewReader(r)
	h, err := t.Next()
	if err != nil || h.Typeflag != tar.TypeReg || strings.Contains(h.Name, "/") {
		return wire.Errorf(wire.CodeArchive, "The archive is not one file.")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		_, err = io.Copy(f, t)
		err = errors.Join(err, f.Chown(h.Uid, h.Gid), syscall.Fchmod(int(f.Fd()), uint32(h.Mode&0o7777)), f.Close())
	}
	if err != nil {
		return fileError(err, "%.256q cannot be written.", path)
	}
	return nil
}
