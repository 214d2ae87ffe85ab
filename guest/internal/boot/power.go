package boot

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Off ends the VM. It is a restart in every case: VMMs without power
// management (microvm, Firecracker) end on it, and the host decides what next.
func Off() {
	syscall.Sync()
	err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	fmt.Fprintf(os.Stderr, "vmsan-agent: the restart failed: %v\n", err)
	// As PID 1 this is a kernel panic, which ends the VM too.
	os.Exit(1)
}

// PowerOff writes everything back, makes the disks read-only and ends the VM.
func (m *Machine) PowerOff(bool) {
	syscall.Sync()
	// What still writes (a stuck process) keeps a mount busy; everything is
	// synced by then, and the journal takes care of the rest.
	unmountAll()
	_ = syscall.Mount("", "/", "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	if m.disk != nil {
		_ = syscall.Mount("", fmt.Sprintf("/proc/self/fd/%d", m.disk.Fd()), "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	Off()
}

// unmountAll takes away what stands on disks, the last mounted first: volumes, and
// overlays that guests have made on them.
func unmountAll() {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(table)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 3 || fields[1] == "/" {
			continue
		}
		if strings.HasPrefix(fields[0], "/dev/") || fields[2] == "overlay" {
			_ = syscall.Unmount(unescape(fields[1]), 0)
		}
	}
}

// unescape undoes the octal escapes of /proc/self/mounts.
func unescape(s string) string {
	for _, c := range []string{" ", "\t", "\n", "\\"} {
		s = strings.ReplaceAll(s, fmt.Sprintf("\\%03o", c[0]), c)
	}
	return s
}

// Own is the root of the VM's own file system below the overlay; nil without one.
func (m *Machine) Own() *os.File {
	if m.Params.Root == "overlay" {
		return m.disk
	}
	return nil
}

// Disk is the root of the VM's own file system, whatever lies over it.
func (m *Machine) Disk() *os.File { return m.disk }

// FreezeDisk holds the file system on the VM's own disk, with everything written
// back and its journal empty, or lets it go again. Both may be repeated.
func (m *Machine) FreezeDisk(hold bool) error {
	const fiFreeze, fiThaw = 0xC0045877, 0xC0045878
	if m.disk == nil {
		return nil
	}
	request, done := uintptr(fiFreeze), syscall.EBUSY
	if !hold {
		request, done = fiThaw, syscall.EINVAL
	}
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, m.disk.Fd(), request, 0); e != 0 && e != done {
		return os.NewSyscallError("freeze the file system", e)
	}
	return nil
}

// Fatal says in one line on the console why the VM cannot be used, and ends it.
func Fatal(err error) {
	code := CodePanic
	var e *Error
	if errors.As(err, &e) {
		code = e.Code
	}
	line := fmt.Sprintf("vmsan-agent: fatal: %s: %s\n", code, strings.ReplaceAll(err.Error(), "\n", " "))
	_, _ = os.Stderr.WriteString(line) // nobody to tell
	if os.Getpid() != 1 {
		os.Exit(1)
	}
	// The console drains while the kernel runs, not afterwards.
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0); err == nil {
		const tcsbrk = 0x5409
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), tcsbrk, 1) // tcdrain
	}
	time.Sleep(20 * time.Millisecond)
	Off()
}

// IgnoreKeys keeps Ctrl-Alt-Del and window changes of the console away from the agent.
func IgnoreKeys() {
	Discard(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGWINCH)
}

// Discard takes these signals and does nothing. They are caught, not ignored: a program that
// the agent starts would inherit "ignored", and could not be interrupted.
func Discard(signals ...os.Signal) {
	signal.Notify(make(chan os.Signal, 1), signals...)
}
