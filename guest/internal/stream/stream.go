// Package stream holds what outlives a connection: streams with an input, two
// outputs in rings, their attached clients and their end (protocol section 4).
// Kinds of work (package kinds) feed it; package api connects clients.
package stream

import (
	"errors"
	"io"
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

// Input gives the stream's input to its kind. Reads end with io.EOF after
// STDIN_EOF, and with an error once the stream is ended from outside.
func (s *Stream) Input() io.Reader { return (*input)(s) }

type input Stream

func (i *input) Read(p []byte) (int, error) {
	s := (*Stream)(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.aborted {
			return 0, errAborted
		}
		if s.in.Len() > 0 {
			break
		}
		if s.inEOF || s.inClosed {
			// The end of what one client types on a terminal is not the others'.
			s.inEOF = s.inEOF && s.Spec.TTY == nil
			return 0, io.EOF
		}
		s.cond.Wait()
	}
	held := s.in.Len() > inputCredit
	n := s.in.ReadAt(p, s.in.Start())
	s.in.DiscardTo(s.in.Start() + uint64(n))
	if held {
		// Only then may somebody wait for room, or for an acknowledgement that was withheld.
		s.changed()
	}
	return n, nil
}

// CloseInput says that nobody will read the input any more.
func (s *Stream) CloseInput() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inClosed = true
	s.in.Free()
	s.changed()
}

// OpenInput is for kinds that always have one. Call it before the stream is ready.
func (s *Stream) OpenInput() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inClosed = false
}

// CloseUnattached ends the stream if no client comes within the time for broken connections.
func (s *Stream) CloseUnattached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timers = append(s.timers, time.AfterFunc(s.reg.limits.Broken, func() {
		s.mu.Lock()
		never := s.exit == nil && !s.attachedOnce
		s.mu.Unlock()
		if never {
			_ = s.Signal(syscall.SIGHUP, true) // it may just have ended
		}
	}))
}

// maxTypists bounds the clients of a terminal whose offsets are remembered.
const maxTypists = 1024

// counter is where the input of a client is counted: on a terminal each client
// has its own. The lock is held.
func (s *Stream) counter(client string) (*uint64, error) {
	if s.Spec.TTY == nil || client == "" {
		return &s.inOffset, nil
	}
	if n := s.typed[client]; n != nil {
		return n, nil
	}
	if len(s.typed) >= maxTypists {
		return nil, wire.Errorf(wire.CodeLimit, "More than %d clients have used this terminal.", maxTypists)
	}
	if s.typed == nil {
		s.typed = map[string]*uint64{}
	}
	n := new(uint64)
	s.typed[client] = n
	return n, nil
}

// accept takes STDIN from c. It waits when a client ignores its credit.
func (s *Stream) accept(c *Client, offset uint64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkOffset(offset, *c.accepted); err != nil {
		return err
	}
	for {
		if c.over {
			return nil
		}
		if skip := *c.accepted - offset; skip >= uint64(len(data)) {
			return nil
		} else if skip > 0 {
			data, offset = data[skip:], *c.accepted
		}
		if s.inClosed || s.inEOF && s.Spec.TTY == nil {
			*c.accepted += uint64(len(data))
			s.changed()
			return nil
		}
		if n := s.in.Append(data); n > 0 {
			*c.accepted += uint64(n)
			s.changed()
			continue
		}
		s.cond.Wait()
	}
}

func checkOffset(offset, accepted uint64) error {
	if offset > accepted {
		return wire.Errorf(wire.CodeOffset, "Input at offset %d was sent, but the agent has only %d bytes.", offset, accepted).
			Remedy("Attach again and send from the offset that ATTACHED names.")
	}
	return nil
}

// acceptEOF takes STDIN_EOF from c.
func (s *Stream) acceptEOF(c *Client, offset uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkOffset(offset, *c.accepted); err != nil {
		return err
	}
	if offset < *c.accepted && !s.inEOF {
		return wire.Errorf(wire.CodeOffset, "The input's end was said to be at %d, but %d bytes have come.", offset, *c.accepted)
	}
	if s.Spec.TTY != nil {
		if s.typedEOF[c.key] {
			return nil
		}
		if s.typedEOF == nil {
			s.typedEOF = map[string]bool{}
		}
		s.typedEOF[c.key] = true
	}
	s.inEOF = true
	s.changed()
	return nil
}

// acknowledgeable is the offset for STDIN_ACK to c; the lock is held.
func (s *Stream) acknowledgeable(c *Client) uint64 {
	if s.in.Len() <= inputCredit {
		return *c.accepted
	}
	return c.inSent
}

// Output gives output which (Stdout, Stderr) to the stream's kind. Writes wait
// while the ring of an attached stream is full.
func (s *Stream) Output(which int) io.Writer { return &outputWriter{s, which} }

type outputWriter struct {
	s     *Stream
	which int
}

func (w *outputWriter) Write(p []byte) (int, error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out[w.which]
	done := 0
	for done < len(p) {
		if s.aborted {
			return done, errAborted
		}
		if o.unread {
			return done, errNoReader
		}
		rest := p[done:]
		if o.ring.Room() < len(rest) {
			s.makeRoom(o, len(rest))
		}
		if n := o.ring.Append(rest); n > 0 {
			done += n
			s.changed()
			continue
		}
		s.cond.Wait()
	}
	return done, nil
}

// makeRoom drops consumed bytes, and in a loose stream the oldest ones.
func (s *Stream) makeRoom(o *output, want int) {
	need := uint64(min(want, o.ring.Limit()) - o.ring.Room())
	to := o.ring.Start() + need
	if !s.loose {
		to = min(to, o.acked)
	}
	o.ring.DiscardTo(to)
}

// CloseOutput says that output which has ended.
func (s *Stream) CloseOutput(which int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out[which].eof = true
	s.changed()
}

// ack takes ACK; the lock is held.
func (s *Stream) ack(which int, offset uint64) {
	o := &s.out[which]
	if offset == noReader {
		// A terminal may have other clients, a detached command others later.
		if s.Spec.TTY == nil && !s.detached {
			o.unread, o.acked = true, o.ring.End()
			o.ring.Free()
			s.changed()
		}
		return
	}
	if offset <= o.acked || offset > o.ring.End() {
		return
	}
	o.acked = offset
	keep := uint64(s.retain)
	if end := o.ring.End(); end > keep {
		o.ring.DiscardTo(min(o.acked, end-keep))
	}
	s.cond.Broadcast()
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
