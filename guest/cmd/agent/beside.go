package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"vmsan/guest/internal/api"
	"vmsan/guest/internal/boot"
	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/proc"
)

// portFD is where a supervised agent finds the open port.
const portFD = 3

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
	files := []uintptr{0, 1, 2}
	if port != nil {
		raw, err := port.File().SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { files = append(files, fd) }); err != nil {
			return err
		}
	} else if err := listener.Close(); err != nil {
		// The agent binds the vsock port itself: a listener can be made again.
		return err
	}
	proc.NewCgroups("/sys/fs/cgroup").Join(os.Getpid())
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
	m, err := boot.Resume()
	if err != nil {
		return err
	}
	s := newServer(api.Options{
		Mode: api.ModeInit, BootID: bootID(), PowerOff: m.PowerOff, OwnInit: boot.AskInit, Everybody: true,
	}, false, proc.NewCgroups("/sys/fs/cgroup"))
	var flags uintptr
	if _, _, e := syscall.Syscall(syscall.SYS_FCNTL, portFD, syscall.F_GETFL, flags); e == 0 {
		syscall.CloseOnExec(portFD)
		port, err := channel.NewPort(portFD)
		if err != nil {
			return err
		}
		return serveChannel(s, port, nil)
	}
	_, listener, err := m.OpenChannel()
	if err != nil {
		return err
	}
	return serveChannel(s, nil, listener)
}
