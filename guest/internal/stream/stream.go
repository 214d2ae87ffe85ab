// Package stream holds what outlives a connection: streams with an input, two
// outputs in rings, their attached clients and their end (protocol section 4).
// Kinds of work (package kinds) feed it; package api connects clients.
package stream

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/ring"
	"vmsan/guest/internal/wire"
)

const (
	// inputCredit is how much unread input is acknowledged (and again sent ahead).
	inputCredit = 1 << 20
	// inputRing has room for what was acknowledged, what is on its way, and a frame.
	inputRing = 2*inputCredit + wire.MaxFrame
	// ackEvery is how much input is acknowledged at a time where nothing else is to be sent.
	ackEvery = 64 << 10
	// attachedRing and detachedRing are the outputs' default limits.
	attachedRing = 4 << 20
	detachedRing = 1 << 20
	// scrollback is how much consumed output a terminal keeps for later clients.
	scrollback = 1 << 20
)

// Names of the outputs.
const (
	Stdout = 0
	Stderr = 1
)

// noReader is the offset of an ACK which says that its output has no reader any more.
const noReader = ^uint64(0)

// errNoReader is what writes give once the client has no use for an output.
var errNoReader = errors.New("nobody reads this output any more")

// errAborted is what a kind's reads and writes give once its stream is ended from outside.
var errAborted = errors.New("the stream was ended")

// Job is the running work behind a stream.
type Job interface {
	// Signal delivers a signal; kinds that are no process end on any of them.
	Signal(sig syscall.Signal, tree bool) error
	// Resize tells a terminal's new size.
	Resize(rows, cols uint16) error
}

// Deserted is a Job that does not outlive its client: it is told once no client is expected back.
type Deserted interface{ Abandoned() }

type output struct {
	ring ring.Ring
	// acked: everything before it has been consumed by a client.
	acked uint64
	eof   bool
	// unread: nobody will read what follows; it is thrown away.
	unread bool
}

// Stream is one stream. Its methods are safe for concurrent use.
type Stream struct {
	Spec    *wire.Spec
	reg     *Registry
	started time.Time
	// ready is closed once job is set or startErr is.
	ready    chan struct{}
	startErr error
	done     chan struct{}

	mu   sync.Mutex
	cond sync.Cond
	job  Job
	pid  int
	user string

	in       ring.Ring
	inOffset uint64             // accepted
	typed    map[string]*uint64 // accepted of each client of a terminal
	typedEOF map[string]bool    // clients whose end of input has been typed: a repeat is none
	inEOF    bool
	inClosed bool // the command has closed its input: drop

	out    [2]output
	retain int

	// detached: kept until it is deleted, with the last of its output.
	detached bool

	clients map[*Client]struct{}
	owners  int
	// attachedOnce: a client has been there.
	attachedOnce bool
	// loose: nobody is expected back, the oldest output makes room for new.
	loose   bool
	parting *time.Timer

	aborted  bool
	timedOut bool
	exit     *wire.Exit
	ended    time.Time
	timers   []*time.Timer
}

func newStream(reg *Registry, spec *wire.Spec) *Stream {
	limit := reg.limits.AttachedRing
	if spec.Detach {
		limit = min(limit, detachedRing)
	}
	if spec.RingBytes > 0 {
		limit = spec.RingBytes
	}
	s := &Stream{
		Spec: spec, reg: reg, started: time.Now(),
		ready: make(chan struct{}), done: make(chan struct{}),
		in: ring.New(inputRing), clients: map[*Client]struct{}{}, user: string(spec.User),
		detached: spec.Detach, loose: spec.Detach && !spec.Hold,
	}
	s.out[0].ring, s.out[1].ring = ring.New(limit), ring.New(limit)
	switch {
	case spec.Detach:
		s.retain = limit
	case spec.TTY != nil:
		s.retain = min(limit, scrollback)
	}
	if !spec.Stdin && spec.TTY == nil {
		s.inClosed = true
	}
	s.cond.L = &s.mu
	return s
}

// changed wakes everybody who may have been waiting; the lock is held.
func (s *Stream) changed() {
	s.cond.Broadcast()
	for c := range s.clients {
		c.poke()
	}
}

// SetProcess records what StreamInfo shows.
func (s *Stream) SetProcess(pid int, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid, s.user = pid, user
}

// TimedOut tells whether the time limit has passed.
func (s *Stream) TimedOut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.timedOut
}

// Grace is the time between TERM and KILL.
func (s *Stream) Grace() time.Duration {
	if s.Spec.GraceMs == nil {
		return 5 * time.Second
	}
	return time.Duration(*s.Spec.GraceMs) * time.Millisecond
}

// Finish ends the stream; the kind has written all its output. Only the first call counts.
func (s *Stream) Finish(e wire.Exit) {
	s.mu.Lock()
	if s.exit != nil {
		s.mu.Unlock()
		return
	}
	s.ended = time.Now()
	e.DurationMs = s.ended.Sub(s.started).Milliseconds()
	if s.timedOut {
		e.TimedOut, e.ExitCode = true, 124
	}
	s.exit = &e
	s.inClosed = true
	s.in.Free()
	for i := range s.out {
		s.out[i].eof = true
		if s.out[i].ring.Len() == 0 {
			s.out[i].ring.Free()
		}
	}
	for _, t := range s.timers {
		t.Stop()
	}
	s.changed()
	close(s.done)
	s.mu.Unlock()
	s.reg.expire()
}

// Abort makes the kind's reads and writes fail.
func (s *Stream) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	s.changed()
}

// Signal delivers a signal to the running job.
func (s *Stream) Signal(sig syscall.Signal, tree bool) error {
	s.mu.Lock()
	job, exit := s.job, s.exit
	s.mu.Unlock()
	if exit != nil || job == nil {
		return wire.Errorf(wire.CodeStreamEnded, "The stream %s has ended; it takes no signals.", s.Spec.ID)
	}
	if err := job.Signal(sig, tree); err != nil && !errors.Is(err, syscall.ESRCH) {
		return wire.AsInfo(err, wire.CodeRequest, "The signal could not be delivered.")
	}
	return nil
}

func (s *Stream) resize(rows, cols uint16) {
	s.mu.Lock()
	job, exit := s.job, s.exit
	s.mu.Unlock()
	if exit == nil && job != nil && rows > 0 && cols > 0 {
		// A terminal whose command is just ending has no size any more.
		_ = job.Resize(rows, cols)
	}
}

// Done is closed when the stream has ended.
func (s *Stream) Done() <-chan struct{} { return s.done }

// startTimeout arms the time limit.
func (s *Stream) startTimeout() {
	if s.Spec.TimeoutMs <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit != nil {
		return
	}
	limit := time.Duration(s.Spec.TimeoutMs) * time.Millisecond
	term := time.AfterFunc(limit, func() {
		s.mu.Lock()
		if s.exit != nil {
			s.mu.Unlock()
			return
		}
		s.timedOut = true
		job := s.job
		s.timers = append(s.timers, time.AfterFunc(s.Grace(), func() {
			// Whoever has ended meanwhile is not there to be signalled.
			_ = job.Signal(syscall.SIGKILL, true)
		}))
		s.mu.Unlock()
		_ = job.Signal(syscall.SIGTERM, true) // as above
	})
	s.timers = append(s.timers, term)
}

// orphan takes the stream from its clients for good.
func (s *Stream) orphan() {
	<-s.ready
	s.mu.Lock()
	for c := range s.clients {
		s.remove(c, true)
	}
	if s.parting != nil {
		s.parting.Stop()
		s.parting = nil
	}
	kind := s.Spec.Kind
	if kind == "exec" {
		s.detached, s.loose = true, true
		s.retain = s.out[Stdout].ring.Limit()
		for i := range s.out {
			// What its client had said of its outputs is void.
			s.out[i].acked = s.out[i].ring.Start()
		}
	}
	s.changed()
	s.mu.Unlock()
	if kind != "exec" {
		_ = s.Signal(syscall.SIGKILL, true) // it may just have ended
	}
}

// Info describes the stream.
func (s *Stream) Info() wire.StreamInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	argv := s.Spec.Argv
	if argv == nil {
		argv = []string{}
	}
	rng := func(o *output) wire.Range {
		return wire.Range{Start: wire.U64(o.ring.Start()), End: wire.U64(o.ring.End())}
	}
	return wire.StreamInfo{
		ID: s.Spec.ID, Kind: s.Spec.Kind, Label: s.Spec.Label, Argv: argv, Pid: s.pid, User: s.user,
		TTY: s.Spec.TTY != nil, Detach: s.detached, StartedAt: s.started.UTC().Format(time.RFC3339Nano),
		Running: s.exit == nil, Attached: len(s.clients), Exit: s.exit,
		Stdout: rng(&s.out[0]), Stderr: rng(&s.out[1]),
	}
}

// Ended tells whether the stream's input or the stream itself was ended from
// outside, so that an end of input means nothing.
func (s *Stream) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted || s.inClosed || s.exit != nil
}

// Accepted is how many bytes of input have been accepted from everybody.
func (s *Stream) Accepted() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.End()
}
