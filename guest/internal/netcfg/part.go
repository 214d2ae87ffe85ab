package netcfg

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

// maxMountName is the longest name of a directory that several mounts show.
const maxMountName = 256

// isPart tells whether a path leads to a place below a directory: "" is the directory itself.
func isPart(part string) bool {
	if part == "" {
		return true
	}
	for _, name := range strings.Split(part, "/") {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsRune(name, 0) {
			return false
		}
	}
	return len(part) <= maxPath
}

// bindPart shows a directory, or a part of it, at the target. What is missing on the way is made, as the directory
// itself is; no link is followed, since who runs in the guest may have put one there.
func bindPart(dir string, m Mount) error {
	at, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = syscall.Close(at) }() // a directory; nothing is lost
	if m.Part != "" {
		for _, name := range strings.Split(m.Part, "/") {
			next, err := enter(at, name)
			if err != nil {
				return wire.Errorf(wire.CodeMount, "%.256q is no directory of what is mounted on %.256q.", m.Part, m.Target).
					Because((&os.PathError{Op: "open", Path: name, Err: err}).Error())
			}
			_ = syscall.Close(at) // as above
			at = next
		}
	}
	here := os.NewFile(uintptr(at), dir)
	defer here.Close()
	at = -1
	if err := syscall.Mount(fdPath(here), m.Target, "", syscall.MS_BIND, ""); err != nil || !m.ReadOnly {
		return err
	}
	return makeReadOnly(m.Target)
}

// enter opens a directory below another one, made with the rights of that one if it is missing.
func enter(at int, name string) (int, error) {
	const flags = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	next, err := syscall.Openat(at, name, flags, 0)
	if !errors.Is(err, syscall.ENOENT) {
		return next, err
	}
	var above syscall.Stat_t
	if err := syscall.Fstat(at, &above); err != nil {
		return -1, err
	}
	if err := syscall.Mkdirat(at, name, 0o700); err != nil && !errors.Is(err, syscall.EEXIST) {
		return -1, err
	}
	if next, err = syscall.Openat(at, name, flags, 0); err != nil {
		return -1, err
	}
	err = errors.Join(syscall.Fchown(next, int(above.Uid), int(above.Gid)), syscall.Fchmod(next, above.Mode&0o7777))
	return next, err
}

// makeReadOnly takes away writing from a mount.
func makeReadOnly(target string) error {
	// What else holds for it has to be said again.
	var fs syscall.Statfs_t
	if err := syscall.Statfs(target, &fs); err != nil {
		return err
	}
	kept := uintptr(fs.Flags) & (syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC)
	return syscall.Mount("", target, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY|kept, "")
}
