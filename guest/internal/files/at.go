package files

import (
	"io"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/wire"
)

// at is a path below an open directory: whatever happens to the directory's
// own path, it stays that directory.
func at(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

// openDir opens a directory below dir without following a symlink.
func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := openAt(dir, name, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openAt is the descriptor of a name in an open directory.
func openAt(dir *os.File, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := syscall.Openat(int(dir.Fd()), name, flags|syscall.O_CLOEXEC, mode)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

// statAt looks at a name in an open directory, not through a symlink.
func statAt(dir *os.File, name string, st *syscall.Stat_t) error {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, e := syscall.Syscall6(sysFstatat, dir.Fd(), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(st)), noFollow, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// readAt reads at an offset of a file; 0 bytes are its end.
func readAt(fd int, b []byte, offset int64) (int, error) {
	for {
		n, err := syscall.Pread(fd, b, offset)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// writeAt writes all of b at an offset of a file.
func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := syscall.Pwrite(fd, b, offset)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		default:
			b, offset = b[n:], offset+int64(n)
		}
	}
	return nil
}

// fileError is an ERR_AGENT_FILE with the cause's text.
func fileError(err error, format string, args ...any) error {
	if info, ok := err.(*wire.ErrorInfo); ok {
		return info
	}
	return wire.Errorf(wire.CodeFile, format, args...).Because(err)
}

// noFollow is AT_SYMLINK_NOFOLLOW.
const noFollow = 0x100

// utimes sets access and modification time without following a symlink.
func utimes(path string, sec, nsec int64) error {
	const atFdcwd = -100
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if err := utimensat(atFdcwd, p, sec, nsec, noFollow); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// futimes is utimes by descriptor.
func futimes(fd int, sec, nsec int64) error { return utimensat(fd, nil, sec, nsec, 0) }

func utimensat(fd int, path *byte, sec, nsec int64, flags uintptr) error {
	ts := [2]syscall.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
	_, _, e := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&ts)), flags, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
