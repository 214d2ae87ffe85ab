// Package rawio reads and writes descriptors that never wait, without telling Go's scheduler. An
// ordinary system call of a program that has nothing else to do wakes the runtime's monitor
// thread, which then looks around every 20 µs; for who hands on small messages one at a time, that was
// most of the work. A call that waits would stop the whole program.
package rawio

import (
	"syscall"
	"unsafe"
)

// Read is read(2) for a descriptor with O_NONBLOCK.
func Read(fd int, b []byte) (int, error) { return call(syscall.SYS_READ, fd, b) }

// Write is write(2) for a descriptor with O_NONBLOCK.
func Write(fd int, b []byte) (int, error) { return call(syscall.SYS_WRITE, fd, b) }

func call(nr uintptr, fd int, b []byte) (int, error) {
	n, _, e := syscall.RawSyscall(nr, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}
