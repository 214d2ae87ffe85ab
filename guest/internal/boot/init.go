// Package boot is what the agent does as the first process of a VM, before it
// can talk to the host: mounts, modules, disks, the switch to the image's root,
// and the power at the end.
package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
)

// Codes of failures before the channel is up; they reach the host by the console.
const (
	CodeMount    = "ERR_AGENT_BOOT_MOUNT"
	CodeTimer    = "ERR_AGENT_BOOT_TIMER"
	CodeModule   = "ERR_AGENT_BOOT_MODULE"
	CodeDisk     = "ERR_AGENT_BOOT_DISK"
	CodeRoot     = "ERR_AGENT_BOOT_ROOT"
	CodeChannel  = "ERR_AGENT_BOOT_CHANNEL"
	CodeInit     = "ERR_AGENT_BOOT_INIT"
	CodePanic    = "ERR_AGENT_BOOT_PANIC"
	CodeArgument = "ERR_AGENT_BOOT_ARGUMENT"
)

// deviceWait is how long disks and the channel may take to appear.
const deviceWait = 15 * time.Second

// Error is a failure that ends the boot.
type Error struct {
	Code    string
	Message string
	Cause   error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

func fail(code string, cause error, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// Params are the agent's arguments on the kernel's command line.
type Params struct {
	Root    string // overlay, flat
	Channel string // "", virtio, vsock
	Init    string // path of the image's init, ""
	Debug   bool
}

// ParseParams reads the vmsan.* words of a command line.
func ParseParams(cmdline string) (Params, error) {
	p := Params{Root: "overlay"}
	for _, word := range strings.Fields(cmdline) {
		name, value, _ := strings.Cut(word, "=")
		bad := func() (Params, error) {
			return p, fail(CodeArgument, nil, "the kernel argument %s is not usable", word)
		}
		switch name {
		case "vmsan.root":
			if p.Root = value; value != "overlay" && value != "flat" {
				return bad()
			}
		case "vmsan.channel":
			if p.Channel = value; value != "virtio" && value != "vsock" {
				return bad()
			}
		case "vmsan.init":
			if p.Init = value; !strings.HasPrefix(value, "/") {
				return bad()
			}
		case "vmsan.debug":
			p.Debug = true
		}
	}
	return p, nil
}

// Machine is a booted root: what is needed later to end it well.
type Machine struct {
	Params Params
	// disk is the writable file system's root, which lies below the switched one.
	disk *os.File
	// modules is the directory of the kernel's modules on their disk, nil without one.
	modules *os.File
	// port is the channel's, if it was needed before the root was there.
	port *channel.Port
	// helps: the agent is the kernel's module helper.
	helps bool
}

// Prepare makes the machine ready for the agent: on return the image's root is "/".
func Prepare() (*Machine, error) {
	if err := earlyMounts(); err != nil {
		return nil, err
	}
	// A kernel panic (also the agent's own end) ends the VM instead of hanging it.
	_ = os.WriteFile("/proc/sys/kernel/panic", []byte("-1"), 0) // kernels without it are started with panic=-1
	if err := requireTimer("/sys/devices/system/clockevents/clockevent0/current_device"); err != nil {
		return nil, err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, fail(CodeMount, err, "the kernel's command line cannot be read")
	}
	p, err := ParseParams(string(cmdline))
	if err != nil {
		return nil, err
	}
	m := &Machine{Params: p}
	m.trace("mounted")
	if err := loadModules("/modules/load"); err != nil {
		return nil, err
	}
	m.trace("modules loaded")
	if err := m.mountRoot("/newroot"); err != nil {
		return nil, err
	}
	m.openModules()
	if err := switchRoot("/newroot"); err != nil {
		return nil, err
	}
	m.trace("root switched")
	furnish()
	m.furnishModules()
	m.trace("furnished")
	return m, nil
}

// trace prints a step with the time since the kernel's start (vmsan.debug).
func (m *Machine) trace(what string) {
	if m.Params.Debug {
		b, err := os.ReadFile("/proc/uptime")
		if err == nil {
			up, _, _ := strings.Cut(string(b), " ")
			fmt.Fprintf(os.Stderr, "vmsan-agent: %s s: %s\n", up, what)
		}
	}
}

// Trace is trace for the agent's main program.
func (m *Machine) Trace(what string) { m.trace(what) }

// requireTimer fails where the kernel says that it has no timer: an emulated one that it measures while the host is
// busy may seem too slow to it, and it does without. Nothing that sleeps would wake in such a guest.
// path is what has the timer's name; a kernel without it says nothing of timers.
func requireTimer(path string) error {
	name, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(name)) != "" {
		return nil
	}
	return fail(CodeTimer, errors.New("it has found none that works"), "the kernel has no timer")
}

func earlyMounts() error {
	for _, x := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"proc", "/proc", "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", "devtmpfs", syscall.MS_NOSUID, "mode=0755"},
	} {
		if err := os.MkdirAll(x.target, 0o755); err != nil {
			return fail(CodeMount, err, "%s cannot be made", x.target)
		}
		if err := syscall.Mount(x.source, x.target, x.kind, x.flags, x.data); err != nil && err != syscall.EBUSY {
			return fail(CodeMount, err, "%s cannot be mounted", x.target)
		}
	}
	return nil
}

// waitFor polls until get gives something or the time is over.
func waitFor(get func() string) string {
	for deadline := time.Now().Add(deviceWait); ; time.Sleep(time.Millisecond) {
		if v := get(); v != "" || time.Now().After(deadline) {
			return v
		}
	}
}
