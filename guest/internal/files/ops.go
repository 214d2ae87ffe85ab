package files

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/wire"
)

// Entry describes a file (protocol section 6).
type Entry struct {
	Name    string    `json:"name"` // base64
	Path    wire.Text `json:"path"`
	Type    string    `json:"type"`
	Size    string    `json:"size"`
	Mode    uint32    `json:"mode"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	MtimeNs string    `json:"mtimeNs"`
	AtimeNs string    `json:"atimeNs"`
	CtimeNs string    `json:"ctimeNs"`
	Target  string    `json:"target,omitempty"` // base64
	Nlink   uint64    `json:"nlink"`
	Dev     string    `json:"dev,omitempty"`
	// Attributes: values (base64) of the extended attributes that were asked for, by what follows the prefix.
	Attributes map[string]string `json:"attributes,omitempty"`
}

var typeNames = map[uint32]string{
	syscall.S_IFREG: "file", syscall.S_IFDIR: "dir", syscall.S_IFLNK: "symlink", syscall.S_IFIFO: "fifo",
	syscall.S_IFSOCK: "socket", syscall.S_IFCHR: "char", syscall.S_IFBLK: "block",
}

// CheckPath refuses paths that mean nothing here.
func CheckPath(path string) error {
	if path == "" || path[0] != '/' || len(path) > maxName || strings.IndexByte(path, 0) >= 0 {
		return wire.Errorf(wire.CodeRequest, "The path %.128q is not an absolute path of at most %d bytes.", path, maxName)
	}
	return nil
}

// Stat describes path, or what it points to, with the extended attributes of this prefix ("": none).
func Stat(path string, follow bool, attributes string) (*Entry, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	return entry(path, path, follow, attributes)
}

func entry(open, path string, follow bool, attributes string) (*Entry, error) {
	var st syscall.Stat_t
	call := syscall.Lstat
	if follow {
		call = syscall.Stat
	}
	if err := call(open, &st); err != nil {
		return nil, fileError(&os.PathError{Op: "stat", Path: path, Err: err}, "%.256q cannot be looked at.", path)
	}
	kind := st.Mode & syscall.S_IFMT
	e := &Entry{
		Name: base64.StdEncoding.EncodeToString([]byte(filepath.Base(path))), Path: wire.Text(path), Type: typeNames[kind],
		Size: strconv.FormatInt(st.Size, 10), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MtimeNs: strconv.FormatInt(st.Mtim.Nano(), 10), AtimeNs: strconv.FormatInt(st.Atim.Nano(), 10),
		CtimeNs: strconv.FormatInt(st.Ctim.Nano(), 10), Nlink: uint64(st.Nlink),
	}
	switch kind {
	case syscall.S_IFLNK:
		to, err := os.Readlink(open)
		if err != nil {
			return nil, fileError(err, "The symlink %.256q cannot be read.", path)
		}
		e.Target = base64.StdEncoding.EncodeToString([]byte(to))
	case syscall.S_IFCHR, syscall.S_IFBLK:
		r := uint64(st.Rdev)
		e.Dev = fmt.Sprintf("%d:%d", r>>8&0xfff|r>>32&^0xfff, r&0xff|r>>12&^0xff)
	}
	// Only files and directories have any that users can set.
	if attributes != "" && (kind == syscall.S_IFREG || kind == syscall.S_IFDIR) {
		e.Attributes = attributesOf(open, attributes)
	}
	return e, nil
}

// ListOptions say what is listed.
type ListOptions struct {
	// Depth 1: what is in the directory; 2: also what is in its directories …
	Depth int
	// Attributes is the prefix of extended attributes to tell; "": none.
	Attributes string
}

// List calls each with the entries of a directory by name, or of its tree.
func List(path string, o ListOptions, each func(*Entry) error) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	d, err := os.OpenFile(path, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fileError(err, "The directory %.256q cannot be listed.", path)
	}
	defer d.Close()
	return list(d, strings.TrimRight(path, "/"), o, 1, each)
}

func list(d *os.File, path string, o ListOptions, depth int, each func(*Entry) error) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fileError(err, "The directory %.256q cannot be listed.", path)
	}
	sort.Strings(names)
	for _, n := range names {
		e, err := entry(at(d, n), path+"/"+n, false, o.Attributes)
		if err != nil {
			// It has been removed meanwhile.
			continue
		}
		if err := each(e); err != nil {
			return err
		}
		if e.Type == "dir" && depth < o.Depth && depth <= maxDepth {
			sub, err := openDir(d, n)
			if err != nil {
				// Unreadable or gone: it has been listed itself.
				continue
			}
			err = list(sub, path+"/"+n, o, depth+1, each)
			_ = sub.Close() // a directory; nothing is lost
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Mkdir makes a directory with exactly mode; with parents, missing ones too and an existing one is fine.
func Mkdir(path string, parents bool, mode uint32) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	if mode > 0o7777 {
		return wire.Errorf(wire.CodeRequest, "The mode %o is not between 0 and 7777.", mode)
	}
	path = filepath.Clean(path)
	if parents {
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fileError(err, "The directory %.256q cannot be made.", filepath.Dir(path))
		}
	}
	err := os.Mkdir(path, 0o700)
	if err == nil {
		err = syscall.Chmod(path, mode)
	}
	if err != nil {
		return fileError(err, "The directory %.256q cannot be made.", path)
	}
	return nil
}

// Change sets owner, group and mode of a file or directory, each if it is given. A symlink's own owner
// is changed, not that of what it points to; a mode it has none.
func Change(path string, uid, gid, mode *uint32) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	if mode != nil && *mode > 0o7777 {
		return wire.Errorf(wire.CodeRequest, "The mode %o is not between 0 and 7777.", *mode)
	}
	id := func(n *uint32) int {
		if n == nil {
			return -1
		}
		return int(*n)
	}
	// Without following anything, also when another takes its place meanwhile.
	fd, err := syscall.Open(path, openPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fileError(&os.PathError{Op: "open", Path: path, Err: err}, "%.256q cannot be changed.", path)
	}
	defer syscall.Close(fd)
	// The owner first: its change clears bits of the mode.
	if uid != nil || gid != nil {
		if err := syscall.Fchownat(fd, "", id(uid), id(gid), atEmptyPath); err != nil {
			return fileError(&os.PathError{Op: "chown", Path: path, Err: err}, "The owner of %.256q cannot be changed.", path)
		}
	}
	if mode != nil {
		if err := syscall.Chmod("/proc/self/fd/"+strconv.Itoa(fd), *mode); err != nil {
			return fileError(&os.PathError{Op: "chmod", Path: path, Err: err}, "The mode of %.256q cannot be changed.", path)
		}
	}
	return nil
}

// Sync has the file system that holds path written to its disk: all that was done to it before.
func Sync(path string) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == nil {
		defer syscall.Close(fd)
		if _, _, e := syscall.Syscall(sysSyncfs, uintptr(fd), 0, 0); e != 0 {
			err = e
		}
	}
	if err != nil {
		return fileError(&os.PathError{Op: "syncfs", Path: path, Err: err}, "The file system of %.256q cannot be written out.", path)
	}
	return nil
}

// Of openat(2) and fchownat(2).
const (
	openPath    = 0x200000
	atEmptyPath = 0x1000
)

// Move renames; an existing destination is only replaced with overwrite.
func Move(from, to string, overwrite bool) error {
	if err := errors.Join(CheckPath(from), CheckPath(to)); err != nil {
		return wire.AsInfo(err, wire.CodeRequest, "The paths cannot be used.")
	}
	err := renameat2(from, to, overwrite)
	switch {
	case errors.Is(err, syscall.EXDEV):
		return wire.Errorf(wire.CodeFile, "%.256q cannot be moved to %.256q.", from, to).Because(err).
			Remedy("They are on different file systems: copy, then remove.")
	case err != nil:
		return fileError(err, "%.256q cannot be moved to %.256q.", from, to)
	}
	return nil
}

func renameat2(from, to string, overwrite bool) error {
	if overwrite {
		return os.Rename(from, to)
	}
	a, err := syscall.BytePtrFromString(from)
	if err != nil {
		return err
	}
	b, err := syscall.BytePtrFromString(to)
	if err != nil {
		return err
	}
	const noReplace = 1
	fdcwd := -100
	_, _, e := syscall.Syscall6(sysRenameat2, uintptr(fdcwd), uintptr(unsafe.Pointer(a)), uintptr(fdcwd), uintptr(unsafe.Pointer(b)), noReplace, 0)
	if e == syscall.EINVAL {
		// The file system cannot do it in one step.
		if _, err := os.Lstat(to); err == nil {
			return syscall.EEXIST
		}
		return os.Rename(from, to)
	}
	if e != 0 {
		return e
	}
	return nil
}

// Remove removes a file or an empty directory, or a whole tree.
func Remove(path string, recursive bool) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	clean := filepath.Clean(path)
	if clean == "/" {
		return wire.Errorf(wire.CodeRequest, "The guest's root directory cannot be removed.")
	}
	err := os.Remove(clean)
	if err != nil && recursive && !errors.Is(err, fs.ErrNotExist) {
		err = os.RemoveAll(clean)
	}
	if err != nil {
		return fileError(err, "%.256q cannot be removed.", path)
	}
	return nil
}
