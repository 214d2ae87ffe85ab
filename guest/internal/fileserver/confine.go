package fileserver

import (
	"fmt"
	"syscall"
	"unsafe"
)

// Capabilities that serving files as root takes: those of linux/capability.h for owners and
// modes. All others are given up, those for devices, mounts and handles of files first of all.
const keptCapabilities = 1<<0 | 1<<1 | 1<<3 | 1<<4 // CHOWN, DAC_OVERRIDE, FOWNER, FSETID

const (
	prSetNoNewPrivs = 38
	capabilityV3    = 0x20080522
	rlimitNofile    = 7
	wantedNofile    = 1 << 20
)

// Confine gives up, for good, what a file server does not need, and takes as many
// descriptors as it may have.
func Confine() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(rlimitNofile, &limit); err == nil {
		more := syscall.Rlimit{Cur: max(limit.Max, wantedNofile), Max: max(limit.Max, wantedNofile)}
		if syscall.Setrlimit(rlimitNofile, &more) != nil {
			limit.Cur = limit.Max
			_ = syscall.Setrlimit(rlimitNofile, &limit) // then with what there is
		}
	}
	if _, _, e := syscall.AllThreadsSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("no_new_privs: %w", e)
	}
	header := struct {
		version uint32
		pid     int32
	}{capabilityV3, 0}
	var data [2]struct{ effective, permitted, inheritable uint32 }
	if _, _, e := syscall.Syscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); e != 0 {
		return fmt.Errorf("capabilities: %w", e)
	}
	data[0].permitted &= keptCapabilities
	data[0].effective = data[0].permitted
	data[0].inheritable = 0
	data[1].permitted, data[1].effective, data[1].inheritable = 0, 0, 0
	_, _, e := syscall.AllThreadsSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if e != 0 {
		return fmt.Errorf("capabilities: %w", e)
	}
	return nil
}
