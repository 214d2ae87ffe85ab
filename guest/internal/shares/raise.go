package shares

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/sharewire"
)

// fileHandle is struct file_handle of a FUSE node: its number in two halves and its
// generation, which the host leaves at 0.
type fileHandle struct {
	size uint32
	kind int32
	node [12]byte
}

const (
	inodeAndGeneration = 0x81
	oPath              = 0x200000
	utimeNow           = 0x3fffffff
	utimeOmit          = 0x3ffffffe
	noFollow           = 0x100
	removeDir          = 0x200
	rootNode           = 1
)

// directory opens a directory by its node, wherever it lies. It is there if anybody
// watches it: a watch keeps it in the kernel's memory.
func directory(root int, node uint64) (int, error) {
	if node == rootNode {
		return syscall.Dup(root)
	}
	h := fileHandle{size: 12, kind: inodeAndGeneration}
	binary.NativeEndian.PutUint32(h.node[0:], uint32(node>>32))
	binary.NativeEndian.PutUint32(h.node[4:], uint32(node))
	fd, _, e := syscall.Syscall(sysOpenByHandle, uintptr(root), uintptr(unsafe.Pointer(&h)), oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// raise makes the kernel call that raises an event. What it would do has been done on the
// host already, whose file server answers it without doing anything.
func raise(root int, ev *sharewire.Event) error {
	dir, err := directory(root, ev.Dir)
	if err != nil {
		return err
	}
	defer syscall.Close(dir)
	switch ev.What {
	case sharewire.Modified:
		// The time of change alone: to watchers that is a change of the content.
		return setTimes(dir, ev.Name, utimeOmit, utimeNow)
	case sharewire.Attributes:
		return setTimes(dir, ev.Name, utimeNow, utimeNow)
	case sharewire.Closed:
		if uint32(ev.Type)<<12 != syscall.S_IFREG {
			return nil
		}
		fd, err := syscall.Openat(dir, ev.Name, syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return syscall.Close(fd)
	case sharewire.Created:
		return create(dir, ev.Name, uint32(ev.Type)<<12)
	case sharewire.Deleted:
		flags := 0
		if uint32(ev.Type)<<12 == syscall.S_IFDIR {
			flags = removeDir
		}
		return unlinkat(dir, ev.Name, flags)
	}
	return nil
}

func setTimes(dir int, name string, atime, mtime int64) error {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	times := [2]syscall.Timespec{{Nsec: atime}, {Nsec: mtime}}
	_, _, e := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(p)),
		uintptr(unsafe.Pointer(&times)), noFollow, 0, 0)
	return failed(e)
}

func create(dir int, name string, kind uint32) error {
	switch kind {
	case syscall.S_IFDIR:
		return syscall.Mkdirat(dir, name, 0o700)
	case syscall.S_IFLNK:
		p, err := syscall.BytePtrFromString(name)
		if err != nil {
			return err
		}
		to := [2]byte{'-', 0}
		_, _, e := syscall.Syscall(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(&to)), uintptr(dir), uintptr(unsafe.Pointer(p)))
		return failed(e)
	case syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK:
		return syscall.Mknodat(dir, name, kind|0o600, 0)
	}
	return nil // devices are the host's own affair
}

func unlinkat(dir int, name string, flags int) error {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, e := syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags))
	return failed(e)
}

func failed(e syscall.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}
