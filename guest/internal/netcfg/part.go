package netcfg

import (
	"errors"
	"os"
	"strconv"
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

// oPath opens a name without what is behind it: neither a device nor a pipe is touched.
const oPath = 0x200000

// bindFound shows a directory or a regular file below dir at the target. It must be there, and no link is followed.
func bindFound(dir string, m Mount) error {
	at, err := syscall.Open(dir, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	for _, name := range strings.Split(m.Part, "/") {
		if err != nil {
			break
		}
		var next int
		next, err = syscall.Openat(at, name, oPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		_ = syscall.Close(at) // a name; nothing is lost
		at = next
	}
	var st syscall.Stat_t
	if err == nil {
		defer func() { _ = syscall.Close(at) }() // as above
		err = syscall.Fstat(at, &st)
	}
	if err != nil {
		return wire.Errorf(wire.CodeMount, "The volume for %.256q has no %.256q.", m.Target, m.Part).
			Because("cannot access path: " + err.Error()).Remedy("Make it in the volume first.")
	}
	place := makePlace
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
	case syscall.S_IFREG:
		place = MakeFile
	default:
		return wire.Errorf(wire.CodeMount, "%.256q is neither a directory nor a file of the volume for %.256q.", m.Part, m.Target).
			Remedy("Name what is one; links are not followed.")
	}
	if err := place(m.Target); err != nil {
		return wire.Errorf(wire.CodeMount, "%.256q cannot be a place of the guest.", m.Target).Because(err)
	}
	return syscall.Mount("/proc/self/fd/"+strconv.Itoa(at), m.Target, "", syscall.MS_BIND, "")
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
