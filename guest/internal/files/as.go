// Package files reads and writes the guest's file system for the host: archives
// both ways, single files, metadata. Everything happens with the rights of the
// user asked for; nothing follows a symlink that an archive brought.
package files

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

// As calls f with u's rights on files; with override what f makes is u's, but
// permissions do not hold. Linux has both per thread: f runs on a thread of its
// own that ends with it, and must not leave work to other goroutines.
func As(u *proc.User, override bool, f func() error) error {
	if os.Getuid() != 0 || u.UID == 0 && u.GID == 0 && len(u.Groups) <= 1 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is thrown away with its changed rights.
		runtime.LockOSThread()
		var err error
		defer func() { done <- err }()
		defer func() {
			if p := recover(); p != nil {
				err = wire.Errorf(wire.CodeInternal, "The agent failed at a file operation.").Because(fmt.Sprint(p))
			}
		}()
		if err = become(u); err == nil && override {
			err = regain()
		}
		if err == nil {
			err = f()
		}
	}()
	return <-done
}

func become(u *proc.User) error {
	groups := append([]uint32{u.GID}, u.Groups...)
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return os.NewSyscallError("setgroups", e)
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(u.GID), 0, 0); e != 0 {
		return os.NewSyscallError("setfsgid", e)
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(u.UID), 0, 0); e != 0 {
		return os.NewSyscallError("setfsuid", e)
	}
	// setfsuid tells of no failure: asking again gives what is set.
	if got, _, _ := syscall.RawSyscall(syscall.SYS_SETFSUID, ^uintptr(0), 0, 0); uint32(got) != u.UID {
		return os.NewSyscallError("setfsuid", syscall.EPERM)
	}
	return nil
}

// regain takes the capabilities up again that the kernel took from the thread
// when its user on files changed.
func regain() error {
	const version3 = 0x20080522
	header := struct {
		version uint32
		pid     int32
	}{version: version3}
	var sets [2]struct{ effective, permitted, inheritable uint32 }
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0); e != 0 {
		return os.NewSyscallError("capget", e)
	}
	for i := range sets {
		sets[i].effective = sets[i].permitted
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0); e != 0 {
		return os.NewSyscallError("capset", e)
	}
	return nil
}
