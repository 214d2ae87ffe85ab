// Package kinds holds the kinds of work that a stream can stand for: commands,
// archives, files, connections, watches. Each takes a stream.Stream and gives
// a stream.Job.
package kinds

import (
	"fmt"
	"io"

	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// Host is what kinds need of the agent around them.
type Host struct {
	run.Host
	// Fill has an archive's files be at a place of the guest.
	Fill func(netcfg.Filling, io.Reader) error
	ssh  ssh
}

// Register tells r about all kinds.
func (h *Host) Register(r *stream.Registry) {
	r.Handle("exec", h.startExec)
	r.Handle("untar", withInput(h.fileKind(untar)))
	r.Handle("fill", withInput(h.fileKind(h.fill)))
	r.Handle("write", withInput(h.fileKind(write)))
	r.Handle("tar", h.fileKind(tarOf))
	r.Handle("read", h.fileKind(read))
	r.Handle("watch", h.startWatch)
	r.Handle("dial", withInput(h.startDial))
	r.Handle("listen", h.startListen(r))
	r.Handle("accepted", startAccepted)
	r.Handle("program", withInput(h.startProgram))
	r.Handle("ssh", withInput(h.startSSH))
}

// withInput is for kinds that have an input whatever `stdin` says.
func withInput(start stream.Starter) stream.Starter {
	return func(s *stream.Stream) (stream.Job, error) {
		s.OpenInput()
		return start(s)
	}
}

// startExec starts a command.
func (h *Host) startExec(s *stream.Stream) (stream.Job, error) {
	spec := s.Spec
	user, err := proc.LookupUser(h.Etc, string(spec.User))
	if err != nil {
		return nil, err
	}
	return h.start(s, &run.Request{
		ID: spec.ID, Argv: spec.Argv, Env: spec.Env, Workdir: string(spec.Workdir), User: user, TTY: spec.TTY, Stdin: spec.Stdin,
	}, s)
}

// start runs a command as the work of s.
func (h *Host) start(s *stream.Stream, r *run.Request, ends run.Ends) (*run.Command, error) {
	c, err := h.Start(r, ends)
	if err != nil {
		return nil, err
	}
	s.SetProcess(c.Pid, r.User.Name)
	go func() {
		exit := c.Wait()
		if s.TimedOut() {
			c.EndTree(s.Grace())
		}
		exit.OOMKilled = c.OOMKilled()
		c.Close()
		s.Finish(exit)
		// Nobody else has to wait for the kernel.
		c.Release()
	}()
	return c, nil
}

// failed is the exit of work that is no process.
func failed(err error, format string, args ...any) wire.Exit {
	return wire.Exit{ExitCode: 1, Error: wire.AsInfo(err, wire.CodeFile, fmt.Sprintf(format, args...))}
}
