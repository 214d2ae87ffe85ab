// Package run starts commands in the guest and carries their inputs and outputs, for whoever
// asked for them: streams of kind exec, sessions of ssh.
package run

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

// lingering is how long a command's outputs may stay open after its end.
const lingering = 250 * time.Millisecond

// maxLeftover bounds what is still read after that from a pipe that somebody keeps filling.
const maxLeftover = 1 << 20

// Host is what commands need of the program that starts them.
type Host struct {
	Reaper *proc.Reaper
	// Cgroups gives each command one of its own; nil: commands stay in the caller's.
	Cgroups *proc.Cgroups
	// Freezer keeps commands from starting while the guest's work is frozen.
	Freezer *proc.Freezer
	// Env gives the VM's environment (PUT /v1/config).
	Env func() []string
	// Limits gives those of the VM's commands (PUT /v1/limits); nil: there are none.
	Limits func() []proc.Limit
	// Etc is where passwd and group are.
	Etc string

	once      sync.Once
	admission *admission
}

func (h *Host) admit() *admission {
	h.once.Do(func() { h.admission = newAdmission() })
	return h.admission
}

// Request says what to run.
type Request struct {
	// ID names the cgroup.
	ID string
	// Program is executed instead of the file that Argv[0] names.
	Program string
	Argv    []string // empty: the user's login shell
	Env     []string // over the VM's
	Workdir string   // "" is / (the home directory for a login shell)
	User    *proc.User
	TTY     *wire.TTY
	// SetModes is given the terminal before the command has it.
	SetModes func(*os.File)
	// Stdin: there is an input, else it is /dev/null.
	Stdin bool
}

// Ends are the far ends of a command's input and outputs (0 and 1).
type Ends interface {
	// Input gives what the command reads. Its reads end with io.EOF at the input's end.
	Input() io.Reader
	// CloseInput says that nobody will read the input any more; reads that wait for more end.
	CloseInput()
	Output(which int) io.Writer
	CloseOutput(which int)
	// Ended tells whether input or command were ended from outside, so that an end of input means nothing.
	Ended() bool
}

// Command is a command that runs.
type Command struct {
	Pid  int
	host *Host
	ends Ends
	x    *stdio

	group  *proc.Group
	status <-chan syscall.WaitStatus
	drains []*drain
}

// Start starts a command. Wait and Close must follow if there was no error.
func (h *Host) Start(r *Request, ends Ends) (*Command, error) {
	if err := h.admit().enter(); err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			h.admission.leave()
		}
	}()
	x, err := openStdio(r)
	if err != nil {
		return nil, wire.Errorf(wire.CodeLimit, "The guest has no descriptors or terminals left for a command.").Because(err)
	}
	group := h.Cgroups.New(r.ID)
	c := &proc.Command{
		Program: r.Program, Argv: r.Argv, Env: r.Env, Base: h.Env(), Workdir: r.Workdir, User: r.User,
		Files: x.child, TTY: r.TTY != nil, CgroupFD: group.FD(),
	}
	if r.TTY != nil {
		c.Term = r.TTY.Term
	}
	if h.Limits != nil {
		c.Limits = h.Limits()
	}
	h.Freezer.Enter()
	p, err := proc.Start(h.Reaper, c)
	h.Freezer.Leave()
	x.closeChild()
	if err != nil {
		x.closeOwn()
		group.Release()
		return nil, err
	}
	started = true
	return &Command{Pid: p.Pid, host: h, ends: ends, x: x, group: group, status: p.Status}, nil
}

// stdio is a command's three descriptors and the agent's ends of them.
type stdio struct {
	child  [3]*os.File
	in     *os.File // nil: no input
	outs   [2]*os.File
	master *os.File
}

func openStdio(r *Request) (*stdio, error) {
	x := &stdio{}
	fail := func(err error) (*stdio, error) {
		x.closeChild()
		x.closeOwn()
		return nil, err
	}
	var err error
	if t := r.TTY; t != nil {
		var slave *os.File
		if x.master, slave, err = proc.OpenPTY(t.Rows, t.Cols, r.User); err != nil {
			return fail(err)
		}
		if r.SetModes != nil {
			r.SetModes(slave)
		}
		x.in, x.outs[0] = x.master, x.master
		x.child = [3]*os.File{slave, slave, slave}
		return x, nil
	}
	if r.Stdin {
		x.child[0], x.in, err = os.Pipe()
	} else {
		x.child[0], err = os.Open(os.DevNull)
	}
	if err != nil {
		return fail(err)
	}
	for i := range x.outs {
		if x.outs[i], x.child[i+1], err = os.Pipe(); err != nil {
			return fail(err)
		}
	}
	if os.Getuid() == 0 && r.User.UID != 0 {
		// So that /dev/stdout and the like can be opened again by path.
		for _, f := range x.child {
			if fi, err := f.Stat(); err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
				// A pipe that stays root's works in all other respects.
				_ = f.Chown(int(r.User.UID), int(r.User.GID))
			}
		}
	}
	return x, nil
}

func (x *stdio) closeChild() { closeAll(x.child[:]) }

func (x *stdio) closeOwn() { closeAll([]*os.File{x.in, x.outs[0], x.outs[1]}) }

// closeAll closes each file once; closing a pipe or terminal cannot lose anything.
func closeAll(files []*os.File) {
	seen := map[*os.File]bool{}
	for _, f := range files {
		if f != nil && !seen[f] {
			seen[f] = true
			_ = f.Close()
		}
	}
}

// Wait moves the data and waits for the end of the command and of its outputs.
func (c *Command) Wait() wire.Exit {
	x, ends := c.x, c.ends
	var outs sync.WaitGroup
	for i, f := range x.outs {
		if f == nil {
			continue
		}
		d := &drain{file: f, out: ends.Output(i)}
		c.drains = append(c.drains, d)
		outs.Add(1)
		go func() {
			defer outs.Done()
			d.pump()
			ends.CloseOutput(i)
		}()
	}
	inDone := make(chan struct{})
	if x.in != nil {
		go func() {
			defer close(inDone)
			c.feed(x.in)
		}()
	} else {
		ends.CloseInput()
		close(inDone)
	}

	ws := <-c.status
	timer := time.AfterFunc(lingering, func() {
		for _, d := range c.drains {
			// Interrupts the wait for more; what is there is still read.
			_ = d.file.SetReadDeadline(time.Unix(1, 0))
		}
	})
	outs.Wait()
	timer.Stop()
	ends.CloseInput()
	if x.in != nil {
		// A write that waits for a reader that will not come is interrupted.
		_ = x.in.SetWriteDeadline(time.Unix(1, 0))
		<-inDone
	}
	return exitOf(ws)
}

// Hangup takes the terminal away, if there is one: whoever runs on it gets SIGHUP.
func (c *Command) Hangup() {
	if c.x.master != nil {
		_ = c.x.master.Close() // it is closed already
	}
}

// OOMKilled tells whether the kernel has killed anything of it for want of memory.
func (c *Command) OOMKilled() bool { return c.group.OOMKills() > 0 }

// Close lets go of the command's ends, once Wait has returned.
func (c *Command) Close() {
	for _, d := range c.drains {
		d.release()
	}
	if c.x.in != nil && c.x.in != c.x.master {
		_ = c.x.in.Close() // the pump has closed it unless it failed
	}
	c.host.admission.leave()
}

// Release removes its cgroup, which waits for the kernel.
func (c *Command) Release() { c.group.Release() }

// EndTree waits until nothing of the command is left, for as long as grace; what is left then is killed.
func (c *Command) EndTree(grace time.Duration) {
	deadline := time.Now().Add(grace)
	for c.remaining() {
		if time.Now().After(deadline) {
			proc.SignalTree(c.group, c.Pid, syscall.SIGKILL)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// remaining tells whether processes of the command are left.
func (c *Command) remaining() bool {
	if c.group != nil {
		return len(c.group.Pids()) > 0
	}
	return proc.TreeAlive(c.Pid)
}

// feed writes the input to the command.
func (c *Command) feed(f *os.File) {
	in := c.ends.Input()
	master := c.x.master
	buf := make([]byte, 64<<10)
	last := byte('\n')
	for {
		n, err := in.Read(buf)
		if n > 0 {
			last = buf[n-1]
			if _, werr := f.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			if master != nil && errors.Is(err, io.EOF) && !c.ends.Ended() {
				// Others may go on typing.
				c.typeEOF(last)
				last = '\n'
				continue
			}
			break
		}
	}
	c.ends.CloseInput()
	if master == nil {
		_ = f.Close() // a pipe; nothing is buffered here
	}
}

// typeEOF does what a user at the keyboard does at the end: once on an empty line, else twice.
func (c *Command) typeEOF(last byte) {
	raw, err := c.x.master.SyscallConn()
	if err != nil {
		return
	}
	var eof byte
	lines := false
	if raw.Control(func(fd uintptr) { eof, lines = proc.EOFByte(int(fd)) }) != nil || !lines {
		return
	}
	keys := []byte{eof}
	if last != '\n' && last != '\r' {
		keys = append(keys, eof)
	}
	_, _ = c.x.master.Write(keys) // the command may have ended meanwhile
}

// Signal signals the leader (on a terminal its foreground group), or the whole tree.
func (c *Command) Signal(sig syscall.Signal, tree bool) error {
	if tree {
		proc.SignalTree(c.group, c.Pid, sig)
		return nil
	}
	if c.x.master != nil {
		if raw, err := c.x.master.SyscallConn(); err == nil {
			pgrp := 0
			if raw.Control(func(fd uintptr) { pgrp = proc.Foreground(int(fd)) }) == nil && pgrp > 1 {
				return syscall.Kill(-pgrp, sig)
			}
		}
	}
	return c.host.Reaper.Signal(c.Pid, sig)
}

// Resize tells the command's terminal its size.
func (c *Command) Resize(rows, cols uint16) error {
	if c.x.master == nil {
		return nil
	}
	raw, err := c.x.master.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = proc.SetSize(int(fd), rows, cols) })
	return errors.Join(cerr, err)
}

// exitOf translates a wait status.
func exitOf(ws syscall.WaitStatus) wire.Exit {
	if ws.Signaled() {
		return wire.Exit{ExitCode: 128 + int(ws.Signal()), Signal: proc.SignalName(ws.Signal())}
	}
	return wire.Exit{ExitCode: ws.ExitStatus()}
}
