package fileserver

import (
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// Linux numbers that package syscall does not have; the same on our architectures.
const (
	oPath           = 0x200000
	atFdcwd         = -100
	atSymlinkNo     = 0x100
	atRemovedir     = 0x200
	atSymlinkYes    = 0x400
	atEmptyPath     = 0x1000
	utimeNow        = 0x3fffffff
	utimeOmit       = 0x3ffffffe
	seekData        = 3
	seekHole        = 4
	renameExchange  = 2
	renameNoreplace = 1
	// fallocate(2)
	fallocPunchHole     = 0x02
	fallocCollapseRange = 0x08
	sysOpenat2          = 437
	// openat2(2): never out of the directory, by no kind of link.
	resolveNoMagic  = 0x02
	resolveNoLinks  = 0x04
	resolveBeneath  = 0x08
	resolveStraight = resolveBeneath | resolveNoLinks | resolveNoMagic
)

// ptr gives a name to the kernel. Names never hold NUL: they end at one where they come from.
func ptr(s string) *byte {
	p, err := syscall.BytePtrFromString(s)
	if err != nil {
		empty := [1]byte{}
		return &empty[0] // ENOENT
	}
	return p
}

// call makes a system call. What the arguments point to must not be on a stack, which moves when it grows:
// the kernel would read and write where it was.
//
//go:uintptrescapes
func call(nr uintptr, args ...uintptr) (int, error) {
	var a [6]uintptr
	copy(a[:], args)
	for {
		r, _, e := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return -1, e
		}
		return int(r), nil
	}
}

// openHow is struct open_how of linux/openat2.h.
type openHow struct{ flags, mode, resolve uint64 }

// hasOpenat2 is false on kernels before 5.6. A single name with O_NOFOLLOW leads nowhere
// else on them either; openat2 says it once more.
var hasOpenat2 = func() bool {
	how := openHow{flags: oPath | syscall.O_CLOEXEC}
	p := ptr("/")
	fd, err := call(sysOpenat2, 0, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how))
	runtime.KeepAlive(p)
	closeFd(fd)
	return err == nil
}()

// openSource opens what is shared itself, through no link.
func openSource(path string, file bool) (int, error) {
	flags := oPath | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	if file {
		flags &^= syscall.O_DIRECTORY
	}
	if !hasOpenat2 {
		return syscall.Open(path, flags, 0)
	}
	how := openHow{flags: uint64(flags), resolve: resolveNoLinks}
	p := ptr(path)
	cwd := atFdcwd
	fd, err := call(sysOpenat2, uintptr(cwd), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how))
	runtime.KeepAlive(p)
	return fd, err
}

// openName opens one name in a directory and nothing that a link leads to.
func openName(dir int, name string, flags int, mode uint32) (int, error) {
	p := ptr(name)
	if hasOpenat2 {
		how := openHow{flags: uint64(flags | syscall.O_NOFOLLOW | syscall.O_CLOEXEC), resolve: resolveStraight}
		if flags&oPath != 0 {
			// A link itself may be looked at: O_NOFOLLOW keeps it from being followed.
			how.resolve = resolveBeneath | resolveNoMagic
		}
		if flags&syscall.O_CREAT != 0 {
			how.mode = uint64(mode)
		}
		fd, err := call(sysOpenat2, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how))
		runtime.KeepAlive(p)
		return fd, err
	}
	fd, err := call(syscall.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(p)),
		uintptr(flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC), uintptr(mode))
	runtime.KeepAlive(p)
	return fd, err
}

// at makes a system call of the form f(dir, name, more…).
//
//go:uintptrescapes
func at(nr uintptr, dir int, name string, more ...uintptr) (int, error) {
	p := ptr(name)
	n, err := call(nr, append([]uintptr{uintptr(dir), uintptr(unsafe.Pointer(p))}, more...)...)
	runtime.KeepAlive(p)
	return n, err
}

func statName(dir int, name string) (syscall.Stat_t, error) {
	var st syscall.Stat_t
	_, err := at(sysFstatat, dir, name, uintptr(unsafe.Pointer(&st)), atSymlinkNo)
	return st, err
}

func renameNames(from int, old string, to int, name string, flags uint32) error {
	a, b := ptr(old), ptr(name)
	_, err := call(sysRenameat2, uintptr(from), uintptr(unsafe.Pointer(a)), uintptr(to), uintptr(unsafe.Pointer(b)), uintptr(flags))
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	return err
}

func symlinkAt(target string, dir int, name string) error {
	a, b := ptr(target), ptr(name)
	_, err := call(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(a)), uintptr(dir), uintptr(unsafe.Pointer(b)))
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	return err
}

// linkAt gives the object of an O_PATH descriptor another name.
func linkAt(fd, dir int, name string) error {
	a, b := ptr(ownFd(fd)), ptr(name)
	cwd := atFdcwd
	_, err := call(syscall.SYS_LINKAT, uintptr(cwd), uintptr(unsafe.Pointer(a)), uintptr(dir), uintptr(unsafe.Pointer(b)), atSymlinkYes)
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	return err
}

// readlinkFd reads the link that an O_PATH descriptor stands for.
func readlinkFd(fd int, to []byte) (int, error) {
	return at(syscall.SYS_READLINKAT, fd, "", uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)))
}

// touch sets the time of a file's last change to now, by the clock at its finest.
func touch(fd int) {
	times := [2]syscall.Timespec{{Nsec: utimeOmit}, syscall.NsecToTimespec(time.Now().UnixNano())}
	// It fails for what is not ours: nothing of it could be written either.
	_, _ = call(syscall.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0)
}

// ownFd names a descriptor of this process as a path that follows to what it is.
func ownFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens what an O_PATH descriptor stands for.
func reopen(fd, flags int) (int, error) {
	return syscall.Open(ownFd(fd), flags|syscall.O_CLOEXEC, 0)
}

func closeFd(fd int) {
	if fd >= 0 {
		_ = syscall.Close(fd) // what was written has been reported by write and fsync
	}
}
