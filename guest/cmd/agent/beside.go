package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"vmsan/guest/internal/api"
	"vmsan/guest/internal/boot"
	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/proc"
)

// supervise keeps the agent running beside the image's own init. It holds the
// port, which may be opened once only, over restarts of the agent.
func supervise() error {
	boot.IgnoreKeys()
	boot.Discard(syscall.SIGTERM)
	m, err := boot.Resume()
	if err != nil {
		return err
	}
	port, listener, err := m.OpenChannel()
	if err != nil {
		return err
	}
	argv := []string{boot.Name, "beside"}
	files := boot.Files(0)
	if port != nil {
		raw, err := port.File().SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { files = boot.Files(fd) }); err != nil {
			return err
		}
	} else if err := listener.Close(); err != nil {
		// The agent binds the vsock port itself: a listener can be made again.
		return err
	}
	proc.NewCgroups("/sys/fs/cgroup", api.MemTotal()).Join(os.Getpid())
	for {
		pid, err := syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{Files: files, Env: os.Environ()})
		if err != nil {
			return err
		}
		var ws syscall.WaitStatus
		for {
			if _, err = syscall.Wait4(pid, &ws, 0, nil); err != syscall.EINTR {
				break
			}
		}
		fmt.Fprintf(os.Stderr, "vmsan-agent: the agent ended (status %#x), starting it again\n", int(ws))
		time.Sleep(200 * time.Millisecond)
	}
}

// runBeside is the agent that supervise starts.
func runBeside() error {
	boot.IgnoreKeys()
	boot.Discard(syscall.SIGTERM)
	// First of all: a descriptor that is free would be another one's soon.
	var port *channel.Port
	var err error
	if _, _, e := syscall.Syscall(syscall.SYS_FCNTL, boot.PortFD, syscall.F_GETFL, 0); e == 0 {
		syscall.CloseOnExec(boot.PortFD)
		if port, err = channel.NewPort(boot.PortFD); err != nil {
			return err
		}
	}
	m, err := boot.Resume()
	if err != nil {
		return err
	}
	m.TakeDisk()
	s := newServer(api.Options{
		Mode: api.ModeInit, BootID: randomID(), PowerOff: m.PowerOff, FreezeDisk: m.FreezeDisk, Disk: m.Disk(), OwnInit: boot.AskInit,
		Everybody: true, Shares: true, Config: &netcfg.Config{System: true, Own: m.Own(), Configured: boot.Configured},
	}, false, proc.NewCgroups("/sys/fs/cgroup", api.MemTotal()))
	if port != nil {
		return serveChannel(s, port, nil)
	}
	_, listener, err := m.OpenChannel()
	if err != nil {
		return err
	}
	return serveChannel(s, nil, listener)
}
