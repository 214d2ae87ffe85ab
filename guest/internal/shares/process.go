package shares

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

// RelayMode is the agent's argument that makes it the relay.
const RelayMode = "relay"

// flushWait is how long what is not written yet may take at the end.
const flushWait = 2 * time.Second

// order is what the agent tells the relay, in one line.
type order struct {
	Token  channel.Token `json:"token"`
	Shares []Share       `json:"shares"`
}

// outcome is what the relay answers, in one line each: that it has mounted, that it has ended.
type outcome struct {
	Error *wire.ErrorInfo `json:"error,omitempty"`
}

// Relay is the relay's whole life. Orders come from the agent by standard input, at whose
// end it ends as well; serve takes connections of the host's file server.
func Relay(serve func(*channel.Pin, func(net.Conn)) error) error {
	in := bufio.NewReader(os.Stdin)
	var o order
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	pin := &channel.Pin{}
	pin.Set(o.Token)
	m := &manager{came: make(chan struct{}, 1)}
	err = serve(pin, m.serve)
	if err == nil {
		err = m.configure(o.Shares)
	}
	say := func(err error) {
		var told outcome
		if err != nil {
			told.Error = wire.AsInfo(err, wire.CodeConfig, "The shared directories could not be mounted.")
		}
		_, _ = os.Stdout.Write(append(wire.JSON(told), '\n')) // the agent is gone: so is its standard input
	}
	say(err)
	if err != nil {
		return err
	}
	_, err = in.ReadBytes('\n')
	m.close(flushWait)
	if err == nil {
		say(nil)
	}
	return nil
}

// Process is the relay as the agent sees it.
type Process struct {
	mu  sync.Mutex
	pid int
	in  *os.File
	out *bufio.Reader
}

// PID is the relay's, 0 if there is none.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Start starts the relay and waits until it has mounted the shares. Only the first call counts.
func (p *Process) Start(reaper *proc.Reaper, token channel.Token, list []Share) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 {
		return nil
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		return err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return errors.Join(err, theirIn.Close(), in.Close())
	}
	pid, _, err := reaper.Start(func() (int, error) {
		return syscall.ForkExec("/proc/self/exe", []string{"@vmsan-agent", RelayMode}, &syscall.ProcAttr{
			Dir: "/", Files: []uintptr{theirIn.Fd(), theirOut.Fd(), 2}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
	})
	if err = errors.Join(err, theirIn.Close(), theirOut.Close()); err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	p.pid, p.in, p.out = pid, in, bufio.NewReader(out)
	if _, err := in.Write(append(wire.JSON(order{token, list}), '\n')); err != nil {
		return err
	}
	return p.hear()
}

// hear waits for an outcome. The lock is held.
func (p *Process) hear() error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return wire.Errorf(wire.CodeConfig, "The relay of the shared directories has ended.").Because(err)
	}
	var told outcome
	if err := json.Unmarshal(line, &told); err != nil {
		return err
	}
	if told.Error != nil {
		return told.Error
	}
	return nil
}

// Close has everything written to the host, if it still listens, and unmounted.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return
	}
	if _, err := p.in.WriteString("close\n"); err == nil {
		done := make(chan struct{})
		go func() {
			_ = p.hear() // it has ended, in either case
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(2 * flushWait):
		}
	}
}
