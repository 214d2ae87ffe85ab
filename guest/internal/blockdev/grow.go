package blockdev

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// sizeWait is how long a disk's new size may take to reach the kernel.
const sizeWait = 10 * time.Second

// size gives the bytes of the disk that a file lies on.
func size(f *os.File) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	dev := uint64(st.Dev)
	major, minor := dev>>8&0xfff|dev>>32&^0xfff, dev&0xff|dev>>12&^0xff
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/size", major, minor))
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return sectors * 512, err
}

// Grow makes the ext4 file system that root lies in as large as its disk, once
// the disk has at least the given bytes.
func Grow(root *os.File, atLeast int64) error {
	const resizeFS = 0x40086610 // EXT4_IOC_RESIZE_FS
	var bytes int64
	for deadline := time.Now().Add(sizeWait); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if bytes, err = size(root); err != nil {
			return err
		}
		if bytes >= atLeast {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the disk has %d bytes, not %d", bytes, atLeast)
		}
	}
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(root.Fd()), &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	blocks := uint64(bytes / int64(fs.Bsize))
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, root.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks))); e != 0 {
		return os.NewSyscallError("resize the file system", e)
	}
	return nil
}
