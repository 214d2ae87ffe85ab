package netcfg

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// errForeignLink is of a link that others than root may have put there.
var errForeignLink = errors.New("a symbolic link on the way is not root's")

// openPlace opens what something of the host's is to be mounted over: a directory or a file, made with what is missing above
// it. Links are followed where only root can have put them, as those of an image are: no program of another user can have
// what it likes mounted over.
func openPlace(path string, file bool) (int, error) {
	for links := 0; links <= maxLinks; links++ {
		at, next, err := walkPlace(filepath.Clean(path), file)
		if err != nil || next == "" {
			return at, err
		}
		path = next
	}
	return -1, syscall.ELOOP
}

// isKernels tells whether a path is a place of the kernel's or of the agent's own. Files of /dev may be mounted over: there
// programs look for that of their last words.
func isKernels(path string, file bool) bool {
	within := func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	return path == "/" || within("/proc") || within("/sys") || within("/dev") && !file
}

// walkPlace opens a place as long as there is no link on the way; else it says which path it leads to.
func walkPlace(path string, file bool) (at int, next string, err error) {
	if isKernels(path, file) {
		return -1, "", syscall.EPERM
	}
	at, err = syscall.Open("/", oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", err
	}
	defer func() {
		if err != nil || next != "" {
			_ = syscall.Close(at) // nothing was written
			at = -1
		}
	}()
	names := strings.Split(path[1:], "/")
	for i, name := range names {
		asFile := file && i == len(names)-1
		here := "/" + strings.Join(names[:i+1], "/")
		below, err := enterPlace(at, name, here, asFile)
		if err != nil {
			return at, "", &os.PathError{Op: "open", Path: here, Err: err}
		}
		var st, above syscall.Stat_t
		err = errors.Join(syscall.Fstat(below, &st), syscall.Fstat(at, &above))
		_ = syscall.Close(at) // as above
		at = below
		if err != nil {
			return at, "", err
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFLNK:
			if st.Uid != 0 || above.Uid != 0 || above.Mode&0o022 != 0 && above.Mode&syscall.S_ISVTX == 0 {
				return at, "", errForeignLink
			}
			to, err := readLink(at)
			if err != nil {
				return at, "", err
			}
			if !strings.HasPrefix(to, "/") {
				to = "/" + strings.Join(names[:i], "/") + "/" + to
			}
			return at, filepath.Join(to, strings.Join(names[i+1:], "/")), nil
		case syscall.S_IFDIR:
			if asFile {
				return at, "", syscall.EISDIR
			}
		case syscall.S_IFREG:
			if !asFile {
				return at, "", syscall.ENOTDIR
			}
		default:
			return at, "", errors.New("something special is there")
		}
	}
	return at, "", nil
}

// enterPlace opens a name in a directory, made if it is missing as what the directory's owner has there.
func enterPlace(at int, name, path string, file bool) (int, error) {
	const flags = oPath | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	below, err := syscall.Openat(at, name, flags, 0)
	if !errors.Is(err, syscall.ENOENT) {
		return below, err
	}
	mode := uint32(0o755)
	if file {
		mode = 0o644
		var made int
		if made, err = syscall.Openat(at, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC, mode); err == nil {
			err = syscall.Close(made)
		}
	} else {
		err = syscall.Mkdirat(at, name, mode)
	}
	if err != nil {
		return -1, err
	}
	if below, err = syscall.Openat(at, name, flags, 0); err != nil {
		return -1, err
	}
	var above syscall.Stat_t
	own := "/proc/self/fd/" + strconv.Itoa(below)
	if err = syscall.Fstat(at, &above); err == nil {
		err = errors.Join(os.Chown(own, int(above.Uid), int(above.Gid)), os.Chmod(own, os.FileMode(mode)))
	}
	if err != nil {
		_ = syscall.Close(below) // nothing was written
		return -1, err
	}
	MarkPlace("/proc/self/fd/"+strconv.Itoa(at)+"/"+name, path)
	return below, nil
}

// readLink tells where an open link leads.
func readLink(link int) (string, error) {
	var empty [1]byte
	to := make([]byte, maxPath+1)
	n, _, e := syscall.Syscall6(syscall.SYS_READLINKAT, uintptr(link), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)), 0, 0)
	if e != 0 {
		return "", e
	}
	if n == 0 || int(n) > maxPath {
		return "", syscall.ENAMETOOLONG
	}
	return string(to[:n]), nil
}
