package netcfg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symlinks a path may lead through, as for the kernel.
const maxLinks = 40

// makeDirectories makes what an image's configuration promises and its layers
// may lack: the working directory and volumes. One that cannot be made does not
// keep the others from it.
func makeDirectories(paths []string) error {
	var failed []error
	for _, p := range paths {
		if err := makeDirectory(p, ownedByRoot); err != nil {
			failed = append(failed, &os.PathError{Op: "make", Path: p, Err: err})
		}
	}
	return errors.Join(failed...)
}

// MakeDirectory makes path, where something is to be mounted, with all that is missing
// above it, root's with mode 0755. Symlinks are followed, and where they lead to nothing
// that is made: as Docker does, and MkdirAll does not.
func MakeDirectory(path string) error { return makeDirectory(path, marked(ownedByRoot)) }

// MakeFile makes a file that something is to be mounted over, with the directories above it;
// what is there already stays, also behind a link.
func MakeFile(path string) error {
	if err := MakeDirectory(filepath.Dir(path)); err != nil {
		return err
	}
	// Not by package os, which shows every file to the poller: on a share the kernel then asks the host about
	// it with the poller locked, and the relay, who is to carry that question, waits for its own poller.
	const flags = syscall.O_RDONLY | syscall.O_CREAT | syscall.O_NONBLOCK | syscall.O_NOCTTY | syscall.O_CLOEXEC
	_, missing := os.Lstat(path)
	fd, err := syscall.Open(path, flags, 0o644)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st syscall.Stat_t
	err = syscall.Fstat(fd, &st)
	_ = syscall.Close(fd) // nothing was written
	if missing != nil {
		MarkPlace(path, path)
	}
	if err == nil && st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		err = &os.PathError{Op: "mount a file at", Path: path, Err: syscall.EISDIR}
	}
	return err
}

// makePlace is MakeDirectory for a place that the user has named: what is missing
// belongs to whom the directory above it belongs to, so that a place in somebody's
// home is theirs.
func makePlace(path string) error { return makeDirectory(path, marked(ownedAsAbove)) }

func makeDirectory(path string, own func(path, above string) error) error {
	done, todo := "/", strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = done[:strings.LastIndexByte(strings.TrimSuffix(done, "/"), '/')+1]
			if done == "" {
				done = "/"
			}
			continue
		}
		next := done + name
		fi, err := os.Lstat(next)
		if errors.Is(err, os.ErrNotExist) {
			if err = os.Mkdir(next, 0o755); err == nil {
				// Mkdir is subject to the umask, and to a set-group-ID bit above.
				err = errors.Join(os.Chmod(next, 0o755), own(next, done))
			}
			fi = nil
		}
		switch {
		case err != nil:
			return err
		case fi == nil || fi.IsDir():
			done = next + "/"
		case fi.Mode()&os.ModeSymlink == 0:
			return syscall.ENOTDIR
		default:
			if links++; links > maxLinks {
				return syscall.ELOOP
			}
			to, err := os.Readlink(next)
			if err != nil {
				return err
			}
			if strings.HasPrefix(to, "/") {
				done = "/"
			}
			todo = append(strings.Split(to, "/"), todo...)
		}
	}
	return nil
}

// marked is own for what is made to mount something there.
func marked(own func(path, above string) error) func(path, above string) error {
	return func(path, above string) error {
		err := own(path, above)
		if err == nil {
			MarkPlace(path, path)
		}
		return err
	}
}

// ownedByRoot gives to root what an agent that is root has made.
func ownedByRoot(path, _ string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Lchown(path, 0, 0)
}

// ownedAsAbove gives what was made to the owner of the directory above.
func ownedAsAbove(path, above string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(above, &st); err != nil || os.Getuid() != 0 {
		return err
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}
