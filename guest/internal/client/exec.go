package client

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"vmsan/guest/internal/wire"
)

// forwarded are the signals that are handed on to the command.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
}

// Exec runs a command in a VM, joined to this process. False: nothing has been done, and the other client is to
// do it. launcher is bin/vmsan, which is also how a daemon that has died is started again.
func Exec(c *Command, d *Daemon, launcher string) (status int, done bool) {
	conn, err := d.Dial()
	if err != nil {
		return 0, false
	}
	vm, err := conn.View(c.VM)
	if err != nil {
		return 0, false
	}
	inputIsTerminal := isTerminal(0)
	withInput := !inputIsTerminal || c.Interactive || c.TTY
	if vm.TimeoutMs > 0 && (c.Interactive || c.TTY) && !c.NoExtend {
		// Somebody works in it, and the limit has to be renewed for as long as that goes on.
		return 0, false
	}
	spec := SpecOf(c, vm, withInput)
	path := "/v1/vms/" + vm.ID
	if err := conn.Upgrade(path + "/v1/streams"); err != nil {
		return 0, false
	}
	session := NewSession(spec, d.opener(path, launcher), os.Stdout, os.Stderr)
	restore := join(session, withInput, c.TTY && inputIsTerminal)
	exit, err := session.Run(conn)
	restore()
	if exit != nil {
		return statusAfterLoss(ended(exit, d.timeLimitPassed(vm)), session.out[0].failure(), session.out[1].failure()), true
	}
	return failed(session, err)
}

// ended says what is to be said of a command's end, and gives its status.
func ended(exit *wire.Exit, timeLimit string) int {
	if exit.Error != nil {
		note("vmsan: " + exit.Error.Message)
	}
	if exit.TimedOut {
		note("vmsan: the command's time limit has passed")
	}
	if timeLimit != "" {
		note(timeLimit)
	}
	if exit.OOMKilled {
		note("vmsan: the guest killed it for lack of memory")
	}
	return exit.ExitCode
}

// statusOfFailure is the exit status of shells for a command that could not be started.
var statusOfFailure = map[string]int{
	"ERR_AGENT_NOT_FOUND": 127, "ERR_AGENT_NO_SHELL": 127, "ERR_AGENT_NOT_EXECUTABLE": 126,
}

// failed says why there is no end, and gives the status. False: the other client is to do it.
func failed(session *Session, err error) (status int, done bool) {
	var info *wire.ErrorInfo
	switch {
	case errors.Is(err, errHandOver):
		return 0, false
	case errors.Is(err, errDetached):
		note("detached; the command goes on as " + session.Spec.ID)
		return 0, true
	case errors.As(err, &info):
		status := report(info)
		if shells, ok := statusOfFailure[info.Code]; ok {
			status = shells
		}
		return status, true
	}
	return reportError(err), true
}

// join ties signals, input and, with a terminal, its modes and size to a session; the function unties it.
func join(session *Session, withInput, terminal bool) func() {
	// A reader that has left shows as EPIPE: the command is told, and its status still counts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	go func() {
		interrupts := 0
		for s := range signals {
			number := s.(syscall.Signal)
			if number == syscall.SIGINT {
				interrupts++
			}
			if interrupts > 1 && number == syscall.SIGINT {
				session.Signal(byte(syscall.SIGKILL), true)
				continue
			}
			// What a terminal would send to the whole foreground group goes to all of it: a shell that waits
			// for its child does not end before the child does.
			tree := number == syscall.SIGINT || number == syscall.SIGQUIT || number == syscall.SIGHUP
			session.Signal(byte(number), tree)
		}
	}()
	restore := func() {}
	if terminal {
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, syscall.SIGWINCH)
		tell := func() {
			now := terminalSize()
			session.Resize(now.Rows, now.Cols)
		}
		tell()
		go func() {
			for range resized {
				tell()
			}
		}()
	}
	session.Join = func() {
		filter := func(b []byte) []byte { return b }
		if terminal {
			restore = rawTerminal()
			keys := &detachKeys{}
			filter = func(b []byte) []byte {
				passed := keys.filter(b)
				if keys.detached {
					go session.Detach()
				}
				return passed
			}
		}
		if withInput {
			go session.Input(os.Stdin, filter)
		}
	}
	return func() { restore() }
}

// opener gives what connects to streams of the VM at path, and starts a daemon where one has died.
func (d *Daemon) opener(path, launcher string) func(stream string) (*Conn, error) {
	return func(stream string) (*Conn, error) {
		conn, err := d.open(path + stream)
		if NotListening(err) || isOtherVersion(err) {
			if start := startDaemon(launcher); start != nil {
				return nil, start
			}
			conn, err = d.open(path + stream)
		}
		return conn, err
	}
}

// open connects to a stream of a VM's agent.
func (d *Daemon) open(path string) (*Conn, error) {
	conn, err := d.Dial()
	if err != nil {
		return nil, err
	}
	if err := conn.Upgrade(path); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// isOtherVersion tells whether the daemon is another version's, which an upgrade leaves behind.
func isOtherVersion(err error) bool {
	var info *wire.ErrorInfo
	return errors.As(err, &info) && info.Code == "ERR_DAEMON_VERSION"
}

// startDaemon starts the daemon of this version, by the client that can.
func startDaemon(launcher string) error {
	cmd := exec.Command(launcher, "daemon", "start")
	cmd.Env = Environment()
	// The user's interrupts are for the command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Run()
}

// Environment makes bin/vmsan use the other client.
func Environment() []string { return append(os.Environ(), "VMSAN_CLIENT=node") }
