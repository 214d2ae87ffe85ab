package shares

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

// RelayMode is the agent's argument that makes it the relay.
const RelayMode = "relay"

const (
	// flushWait is how long what is not written yet may take at the end.
	flushWait = 2 * time.Second
	// holdWait is how long the host may take to keep what it knows.
	holdWait = 15 * time.Second
	// slack is what the relay may take beyond its own limits before it is taken for broken.
	slack = 30 * time.Second
)

// Words of the agent's, each a line.
const (
	wordHold  = "hold"
	wordMove  = "move" // and the token, as JSON
	wordGoOn  = "go"
	wordClose = "close"
)

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
func Relay(serve func(*channel.Pin, func(net.Conn) channel.Taker) error) error {
	// Its work is to hand on: what one thread does needs no other one to be woken.
	runtime.GOMAXPROCS(1)
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
	m := newManager()
	err = serve(pin, m.open)
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
	for {
		line, err := in.ReadString('\n')
		switch word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case err != nil:
			m.close(flushWait)
			return nil
		case word == wordHold:
			say(m.hold(holdWait))
		case word == wordMove:
			var token channel.Token
			err := json.Unmarshal([]byte(rest), &token)
			if err == nil {
				pin.Set(token)
				m.move()
			}
			say(err)
		case word == wordGoOn:
			m.goOn()
			say(nil)
		default:
			m.close(flushWait)
			say(nil)
			return nil
		}
	}
}

// Process is the relay as the agent sees it.
type Process struct {
	mu  sync.Mutex
	pid int
	// started is what Start's first call has come to.
	started error
	in, out *os.File
	lines   *bufio.Reader
}

// PID is the relay's, 0 if there is none.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Start starts the relay and waits until it has mounted the shares. Only the first call counts;
// others have its outcome.
func (p *Process) Start(reaper *proc.Reaper, token channel.Token, list []Share) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		p.started = p.start(reaper, token, list)
	}
	return p.started
}

// start is Start's first call. The lock is held.
func (p *Process) start(reaper *proc.Reaper, token channel.Token, list []Share) error {
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
	p.pid, p.in, p.out, p.lines = pid, in, out, bufio.NewReader(out)
	if _, err := in.Write(append(wire.JSON(order{token, list}), '\n')); err != nil {
		return err
	}
	return p.hear(connectWait + answerWait + slack)
}

// hear waits for an outcome. A relay that does not say it in time is ended: what it says later
// would be taken for an answer to something else. The lock is held.
func (p *Process) hear(limit time.Duration) error {
	if err := p.out.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	line, err := p.lines.ReadBytes('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it is there: nobody else holds its end of the pipe
		return wire.Errorf(wire.CodeConfig, "The relay of the shared directories has not answered within %v.", limit)
	}
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

// ask says a word and waits for its outcome; nothing happens when there is no relay.
func (p *Process) ask(word string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return nil
	}
	if _, err := p.in.WriteString(word + "\n"); err != nil {
		return err
	}
	return p.hear(holdWait + slack)
}

// Hold has nothing under way, and the host keep what it knows, until GoOn.
func (p *Process) Hold() error { return p.ask(wordHold) }

// Move tells that the VM's memory has been in a file since Hold: another file server will come, with
// this token.
func (p *Process) Move(token channel.Token) error {
	return p.ask(wordMove + " " + string(wire.JSON(token)))
}

// GoOn ends Hold.
func (p *Process) GoOn() error { return p.ask(wordGoOn) }

// Close has everything written to the host, if it still listens, and unmounted.
func (p *Process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return
	}
	if _, err := p.in.WriteString(wordClose + "\n"); err == nil {
		_ = p.hear(2 * flushWait) // it has ended, in either case
	}
}
