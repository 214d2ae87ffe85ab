// Package kinds holds the kinds of work that a stream can stand for: commands,
// archives, files, connections, watches. Each takes a stream.Stream and gives
// a stream.Job.
package kinds

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// lingering is how long a command's outputs may stay open after its end.
const lingering = 250 * time.Millisecond

// maxLeftover bounds what is still read after that from a pipe that somebody keeps filling.
const maxLeftover = 1 << 20

// Host is what kinds need of the agent around them.
type Host struct {
	Reaper  *proc.Reaper
	Cgroups *proc.Cgroups
	// Freezer keeps commands from starting while the guest's work is frozen.
	Freezer *proc.Freezer
	// Env gives the VM's environment (PUT /v1/config).
	Env func() []string
	// Etc is where passwd and group are.
	Etc string

	admission *admission
}

// Register tells r about all kinds.
func (h *Host) Register(r *stream.Registry) {
	h.admission = newAdmission()
	r.Handle("exec", h.startExec)
	r.Handle("untar", withInput(h.fileKind(untar)))
	r.Handle("write", withInput(h.fileKind(write)))
	r.Handle("tar", h.fileKind(tarOf))
	r.Handle("read", h.fileKind(read))
	r.Handle("watch", h.startWatch)
	r.Handle("dial", withInput(h.startDial))
	r.Handle("listen", h.startListen(r))
	r.Handle("accepted", startAccepted)
}

// withInput is for kinds that have an input whatever `stdin` says.
func withInput(start stream.Starter) stream.Starter {
	return func(s *stream.Stream) (stream.Job, error) {
		s.OpenInput()
		return start(s)
	}
}

// command is the Job of kind exec.
type command struct {
	host   *Host
	s      *stream.Stream
	pid    int
	group  *proc.Group
	master *os.File // of a tty
}

// startExec starts a command.
func (h *Host) startExec(s *stream.Stream) (stream.Job, error) {
	spec := s.Spec
	user, err := proc.LookupUser(h.Etc, string(spec.User))
	if err != nil {
		return nil, err
	}
	if err := h.admission.enter(); err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			h.admission.leave()
		}
	}()
	x, err := openStdio(spec, user)
	if err != nil {
		return nil, wire.Errorf(wire.CodeLimit, "The guest has no descriptors or terminals left for a command.").Because(err)
	}
	group := h.Cgroups.New(spec.ID)
	c := &proc.Command{
		Argv: spec.Argv, Env: spec.Env, Base: h.Env(), Workdir: string(spec.Workdir), User: user,
		Files: x.child, TTY: spec.TTY != nil, CgroupFD: group.FD(),
	}
	if spec.TTY != nil {
		c.Term = spec.TTY.Term
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
	s.SetProcess(p.Pid, user.Name)
	job := &command{host: h, s: s, pid: p.Pid, group: group, master: x.master}
	started = true
	go job.run(p.Status, x)
	return job, nil
}

// stdio is a command's three descriptors and the agent's ends of them.
type stdio struct {
	child  [3]*os.File
	in     *os.File // nil: no input
	outs   [2]*os.File
	master *os.File
}

func openStdio(spec *wire.Spec, user *proc.User) (*stdio, error) {
	x := &stdio{}
	fail := func(err error) (*stdio, error) {
		x.closeChild()
		x.closeOwn()
		return nil, err
	}
	var err error
	if t := spec.TTY; t != nil {
		var slave *os.File
		if x.master, slave, err = proc.OpenPTY(t.Rows, t.Cols, user); err != nil {
			return fail(err)
		}
		x.in, x.outs[0] = x.master, x.master
		x.child = [3]*os.File{slave, slave, slave}
		return x, nil
	}
	if spec.Stdin {
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
	if os.Getuid() == 0 && user.UID != 0 {
		// So that /dev/stdout and the like can be opened again by path.
		for _, f := range x.child {
			if fi, err := f.Stat(); err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
				// A pipe that stays root's works in all other respects.
				_ = f.Chown(int(user.UID), int(user.GID))
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

// run moves the data and waits for the end.
func (c *command) run(status <-chan syscall.WaitStatus, x *stdio) {
	s := c.s
	var outs sync.WaitGroup
	drains := make([]*drain, 0, 2)
	for i, f := range x.outs {
		if f == nil {
			continue
		}
		d := &drain{file: f, out: s.Output(i)}
		drains = append(drains, d)
		outs.Add(1)
		go func() {
			defer outs.Done()
			d.pump()
			s.CloseOutput(i)
		}()
	}
	inDone := make(chan struct{})
	if x.in != nil {
		go func() {
			defer close(inDone)
			c.feed(x.in)
		}()
	} else {
		s.CloseInput()
		close(inDone)
	}

	ws := <-status
	timer := time.AfterFunc(lingering, func() {
		for _, d := range drains {
			// Interrupts the wait for more; what is there is still read.
			_ = d.file.SetReadDeadline(time.Unix(1, 0))
		}
	})
	outs.Wait()
	timer.Stop()
	s.CloseInput()
	if x.in != nil {
		// A write that waits for a reader that will not come is interrupted.
		_ = x.in.SetWriteDeadline(time.Unix(1, 0))
		<-inDone
	}
	if s.TimedOut() {
		c.endTree()
	}
	exit := exitOf(ws)
	exit.OOMKilled = c.group.OOMKills() > 0
	for _, d := range drains {
		d.release()
	}
	if x.in != nil && x.in != x.master {
		_ = x.in.Close() // the pump has closed it unless it failed
	}
	c.host.admission.leave()
	s.Finish(exit)
	// Removing a cgroup waits for the kernel; nobody else has to.
	c.group.Release()
}

// endTree waits until the tree of a timed-out command is gone, which KILL sees to after the grace time.
func (c *command) endTree() {
	deadline := time.Now().Add(c.s.Grace())
	for c.remaining() {
		if time.Now().After(deadline) {
			proc.SignalTree(c.group, c.pid, syscall.SIGKILL)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// remaining tells whether processes of the command are left.
func (c *command) remaining() bool {
	if c.group != nil {
		return len(c.group.Pids()) > 0
	}
	return proc.TreeAlive(c.pid)
}

// feed writes the stream's input to the command.
func (c *command) feed(f *os.File) {
	in := c.s.Input()
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
			if c.master != nil && errors.Is(err, io.EOF) && !c.s.Ended() {
				// Others may go on typing.
				c.typeEOF(last)
				last = '\n'
				continue
			}
			break
		}
	}
	c.s.CloseInput()
	if c.master == nil {
		_ = f.Close() // a pipe; nothing is buffered here
	}
}

// typeEOF does what a user at the keyboard does at the end: once on an empty line, else twice.
func (c *command) typeEOF(last byte) {
	raw, err := c.master.SyscallConn()
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
	_, _ = c.master.Write(keys) // the command may have ended meanwhile
}

// Signal implements stream.Job.
func (c *command) Signal(sig syscall.Signal, tree bool) error {
	if tree {
		proc.SignalTree(c.group, c.pid, sig)
		return nil
	}
	if c.master != nil {
		if raw, err := c.master.SyscallConn(); err == nil {
			pgrp := 0
			if raw.Control(func(fd uintptr) { pgrp = proc.Foreground(int(fd)) }) == nil && pgrp > 1 {
				return syscall.Kill(-pgrp, sig)
			}
		}
	}
	return c.host.Reaper.Signal(c.pid, sig)
}

// Resize implements stream.Job.
func (c *command) Resize(rows, cols uint16) error {
	if c.master == nil {
		return nil
	}
	raw, err := c.master.SyscallConn()
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

// failed is the exit of work that is no process.
func failed(err error, format string, args ...any) wire.Exit {
	return wire.Exit{ExitCode: 1, Error: wire.AsInfo(err, wire.CodeFile, fmt.Sprintf(format, args...))}
}
