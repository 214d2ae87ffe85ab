// Command ssh is the server of one connection of ssh in a guest. The agent starts it with the
// connection as its standard input and output; `sftp` as argument makes it the server of files
// that it starts itself, as the connection's user.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/sshd"
)

func main() {
	// New files of what it starts: rw-r--r--.
	syscall.Umask(0o022)
	proc.HideDescriptors()
	// It is executed by the number of a descriptor, and would be called so.
	if name, err := unix.BytePtrFromString("vmsan-ssh"); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0) // it cannot fail
	}
	// A handler rather than none: a client that is gone is an error of a write, also on standard output.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var err error
	if len(os.Args) > 1 && os.Args[1] == "sftp" {
		err = sshd.SFTP()
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "vmsan-ssh: %v\n", err)
		os.Exit(1)
	}
}

// connection gives standard input and output as files that no thread waits in: handing each packet from one thread to
// another is a good part of what a short command costs. Nobody shares these pipes.
func connection() (in, out *os.File, err error) {
	for fd := range 2 {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return nil, nil, err
		}
	}
	return os.NewFile(0, "input"), os.NewFile(1, "output"), nil
}

// serve serves one connection.
func serve() error {
	stop := make(chan struct{})
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	go func() {
		<-term
		close(stop)
	}()
	in, out, err := connection()
	if err != nil {
		return err
	}
	proc.BePatient()
	// The connection has a cgroup, in which all that it starts is.
	host := &run.Host{Reaper: proc.NewReaper(false), Freezer: &proc.Freezer{}, Etc: "/etc"}
	return sshd.Serve(in, out, host, "/proc/self/exe", stop)
}
