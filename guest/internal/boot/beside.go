package boot

import (
	"os"
	"syscall"
	"time"
)

// Name is the argv[0] of the agent beside an init. By systemd's convention a
// leading "@" keeps a process through shutdown until the very end.
const Name = "@vmsan-agent"

// Descriptors of the agent beside an init.
const (
	// readyFD is written to once the guest is configured.
	readyFD = 3
	// diskFD is the root of the VM's own file system.
	diskFD = 4
	// PortFD is the open port, if the channel is one.
	PortFD = 5
)

// configWait is how long an init waits for the guest's configuration.
const configWait = 2 * time.Minute

// ExecInit starts the supervised agent, waits until the guest is configured (its
// volumes are there, its name is right) and becomes the image's own init. It
// returns only when that fails.
func (m *Machine) ExecInit() error {
	if err := executable(m.Params.Init); err != nil {
		return fail(CodeInit, err, "the image's init %s cannot be run", m.Params.Init)
	}
	configured, ready, err := os.Pipe()
	if err != nil {
		return fail(CodeInit, err, "no pipe can be made")
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{Name, "supervise"}, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, ready.Fd(), m.disk.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fail(CodeInit, err, "the agent cannot be started beside the image's init")
	}
	_ = ready.Close() // the child has its own
	_ = configured.SetReadDeadline(time.Now().Add(configWait))
	if n, err := configured.Read(make([]byte, 1)); n == 0 {
		warn("the image's init begins before the guest is configured: %v", err)
	}
	if m.helps {
		helpFrom(pid) // this process's program is the image's from now on
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"}
	err = syscall.Exec(m.Params.Init, []string{m.Params.Init}, env)
	return fail(CodeInit, err, "the image's init %s cannot be run", m.Params.Init)
}

func executable(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}

// Resume gives the machine to the agent beside an init: the root is switched already.
func Resume() (*Machine, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	p, err := ParseParams(string(cmdline))
	return &Machine{Params: p}, err
}

// TakeDisk gives m the VM's own file system, which its supervisor has handed on.
func (m *Machine) TakeDisk() {
	syscall.CloseOnExec(readyFD)
	syscall.CloseOnExec(diskFD)
	m.disk = os.NewFile(diskFD, "disk")
}

// Configured lets the init go on that waits for the guest's configuration.
func Configured() {
	_, _ = syscall.Write(readyFD, []byte{1}) // repeated, or nobody waits any more
}

// Files are the descriptors that a supervisor hands on to the agent beside an init.
func Files(port uintptr) []uintptr {
	files := []uintptr{0, 1, 2, readyFD, diskFD}
	if port != 0 {
		files = append(files, port)
	}
	return files
}

// AskInit asks PID 1 to end the system in its own order. It is a restart in
// every case, for the reason given at Off.
func AskInit(bool) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		const startRebootTarget = 34 + 5                       // SIGRTMIN+5, systemd(1)
		_ = syscall.Kill(1, syscall.Signal(startRebootTarget)) // the grace time's end comes all the same
		return
	}
	for _, reboot := range []string{"/sbin/reboot", "/usr/sbin/reboot", "/bin/reboot"} {
		if executable(reboot) != nil {
			continue
		}
		_, err := syscall.ForkExec(reboot, []string{"reboot"}, &syscall.ProcAttr{
			Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Files: []uintptr{0, 1, 2},
		})
		if err == nil {
			return
		}
	}
	_ = syscall.Kill(1, syscall.SIGTERM) // busybox init restarts on it
}
