package stream

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/wire"
)

// chunk is how much output is sent at a time, shared by both outputs. The
// buffer has room for the small frames besides.
const chunk = 256 << 10

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, chunk+256)
	return &b
}}

// Client is one attachment to a stream; its fields are guarded by the stream's lock.
type Client struct {
	stream  *Stream
	observe bool
	key     string
	// accepted counts the input that has come, of this client or of all.
	accepted *uint64
	pos      [2]uint64
	eofSent  [2]bool
	inSent   uint64
	notify   chan struct{}
	// over: the client is gone or replaced.
	over      bool
	failure   error
	detached  bool
	confirmed chan struct{}
	once      sync.Once
}

func (c *Client) poke() {
	select {
	case c.notify <- struct{}{}:
	default:
	}
}

// Writer is where frames go.
type Writer interface {
	io.Writer
	Flush() error
}

// attach adds a client. at gives its positions while the lock is held.
func (s *Stream) attach(key string, observe bool, at func() ([2]uint64, error)) (*Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pos, err := at()
	if err != nil {
		return nil, err
	}
	accepted, err := s.counter(key)
	if err != nil {
		return nil, err
	}
	c := &Client{
		stream: s, observe: observe, key: key, accepted: accepted, pos: pos, inSent: *accepted,
		notify: make(chan struct{}, 1), confirmed: make(chan struct{}),
	}
	if !observe {
		for old := range s.clients {
			// On a terminal only an older connection of the same client gives way.
			if !old.observe && (s.Spec.TTY == nil || key != "" && old.key == key) {
				s.remove(old, false)
				old.failure = wire.Errorf(wire.CodeTakenOver, "Another client has taken over the stream %s.", s.Spec.ID)
				old.poke()
			}
		}
		s.owners++
		s.attachedOnce = true
		s.loose = false
		if s.parting != nil {
			s.parting.Stop()
			s.parting = nil
		}
	}
	s.clients[c] = struct{}{}
	return c, nil
}

// remove takes a client away; the lock is held.
func (s *Stream) remove(c *Client, onPurpose bool) {
	if c.over {
		return
	}
	c.over = true
	delete(s.clients, c)
	if !c.observe {
		s.owners--
		if s.owners == 0 {
			s.part(onPurpose)
		}
	}
	s.changed()
}

// part begins the time without a client; the lock is held.
func (s *Stream) part(onPurpose bool) {
	if s.detached || onPurpose {
		s.loosen()
		return
	}
	var t *time.Timer
	t = time.AfterFunc(s.reg.limits.Broken, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.parting == t && s.owners == 0 {
			s.loosen()
			s.changed()
		}
	})
	s.parting = t
}

// loosen: nobody is expected back; the lock is held.
func (s *Stream) loosen() {
	s.loose = !s.Spec.Hold
	if j, ok := s.job.(Deserted); ok && s.exit == nil {
		go j.Abandoned()
	}
}

// AttachNew attaches the client that sent START: from what is not acknowledged.
func (s *Stream) AttachNew(client string) (*Client, error) {
	return s.attach(client, false, func() ([2]uint64, error) {
		return [2]uint64{max(s.out[0].acked, s.out[0].ring.Start()), max(s.out[1].acked, s.out[1].ring.Start())}, nil
	})
}

// AttachAt attaches the client that sent ATTACH.
func (s *Stream) AttachAt(a *wire.AttachRequest) (*Client, error) {
	return s.attach(a.Client, a.Observe, func() ([2]uint64, error) {
		pos := [2]uint64{uint64(a.Stdout), uint64(a.Stderr)}
		for i := range pos {
			o := &s.out[i].ring
			if a.Tail != nil {
				pos[i] = o.Start()
				if t := uint64(*a.Tail); o.End() > t {
					pos[i] = max(pos[i], o.End()-t)
				}
			}
			if pos[i] > o.End() {
				return pos, wire.Errorf(wire.CodeOffset, "Output from offset %d was asked for, but only %d bytes have come.", pos[i], o.End()).
					Remedy("Attach at the offset up to which output was received.")
			}
		}
		if !a.Observe && a.Tail == nil {
			for i, p := range pos {
				s.ack(i, p)
			}
		}
		return pos, nil
	})
}

// Run serves the client until the stream has ended and it knows, or until it is
// gone. Frames come from in and go to w.
func (c *Client) Run(ctx context.Context, created bool, in *wire.Reader, w Writer) {
	s := c.stream
	stop := context.AfterFunc(ctx, func() { c.leave() })
	defer stop()
	defer c.leave()
	s.mu.Lock()
	hello := wire.AttachedReply{
		ID: s.Spec.ID, Pid: s.pid, Stdin: wire.U64(c.inSent),
		Stdout: wire.U64(c.pos[0]), Stderr: wire.U64(c.pos[1]), Created: created,
	}
	s.mu.Unlock()
	if _, err := w.Write(wire.AppendRaw(nil, wire.Attached, wire.JSON(hello))); err != nil || w.Flush() != nil {
		return
	}
	readerDone := make(chan struct{})
	go func() {
		defer close(readerDone)
		c.read(in)
	}()
	if !c.send(ctx, w) {
		return
	}
	// EXIT is out. Ending the response now would cut off ACK 0.
	timer := time.NewTimer(s.reg.limits.Confirm)
	defer timer.Stop()
	select {
	case <-c.confirmed:
	case <-readerDone:
	case <-ctx.Done():
	case <-timer.C:
	}
}

// leave takes the client away, if it still is there.
func (c *Client) leave() {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	c.stream.remove(c, c.detached)
}

// read takes the client's frames until its request ends.
func (c *Client) read(in *wire.Reader) {
	for {
		f, err := in.Next()
		if err == nil {
			err = c.take(f)
		}
		if err == nil {
			continue
		}
		var info *wire.ErrorInfo
		if errors.As(err, &info) {
			c.stream.mu.Lock()
			c.failure = info
			c.poke()
			c.stream.mu.Unlock()
		}
		// Otherwise the request has ended or broken: what is sent shows which.
		return
	}
}

// errDetached ends the reading.
var errDetached = errors.New("detached")

// take acts on one frame.
func (c *Client) take(f wire.Frame) error {
	s := c.stream
	switch f.Type {
	case wire.Stdin, wire.StdinEOF, wire.Resize, wire.Signal:
		if c.observe {
			return wire.Errorf(wire.CodeRequest, "An observer sent %s.", f.Type).Because("observers only watch")
		}
	}
	switch f.Type {
	case wire.Stdin:
		return s.accept(c, f.Offset, f.Data)
	case wire.StdinEOF:
		return s.acceptEOF(c, f.Offset)
	case wire.Resize:
		s.resize(f.Rows, f.Cols)
	case wire.Signal:
		if f.Signal == 0 || f.Signal > 64 {
			return wire.Errorf(wire.CodeRequest, "There is no signal %d.", f.Signal)
		}
		// A signal that crosses the end of the command has nobody to go to.
		_ = s.Signal(syscall.Signal(f.Signal), f.Tree)
	case wire.Ack:
		if c.observe {
			return nil
		}
		if f.Stream == 0 {
			c.confirm()
			return nil
		}
		s.mu.Lock()
		if !c.over {
			// Behind a new attachment an old connection's word counts no more: the
			// new one was promised what is not acknowledged.
			s.ack(int(f.Stream-1), f.Offset)
		}
		s.mu.Unlock()
	case wire.Detach:
		s.mu.Lock()
		c.detached = true
		s.remove(c, true)
		c.poke()
		s.mu.Unlock()
		return errDetached
	case wire.Start, wire.Attach:
		return wire.Errorf(wire.CodeRequest, "%s came in the middle of a request.", f.Type)
	}
	return nil
}

// confirm forgets the stream: its client has everything.
func (c *Client) confirm() {
	s := c.stream
	s.mu.Lock()
	ended, detached := s.exit != nil, s.detached
	s.mu.Unlock()
	if !ended {
		return
	}
	if !detached {
		s.reg.forget(s)
	}
	c.once.Do(func() { close(c.confirmed) })
}

// send sends until EXIT (true), or until the client is gone or has failed (false).
func (c *Client) send(ctx context.Context, w Writer) bool {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	dirty := false
	for {
		b, last, err := c.next((*buf)[:0])
		*buf = b[:0]
		if err != nil {
			b = wire.AppendRaw(b[:0], wire.Fail, wire.JSON(wire.AsInfo(err, wire.CodeInternal, "The client was turned away.")))
		}
		if len(b) > 0 {
			if _, werr := w.Write(b); werr != nil {
				return false
			}
			dirty = true
		}
		if last || err != nil {
			return w.Flush() == nil && err == nil
		}
		if len(b) > 0 {
			continue
		}
		if dirty {
			if w.Flush() != nil {
				return false
			}
			dirty = false
			continue
		}
		if c.isOver() {
			return false
		}
		select {
		case <-c.notify:
		case <-ctx.Done():
			return false
		}
	}
}

func (c *Client) isOver() bool {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return c.over
}

// next adds the frames that can be sent now to b; last means that EXIT is among them.
func (c *Client) next(b []byte) (frames []byte, last bool, err error) {
	s := c.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.failure != nil {
		return b, false, c.failure
	}
	if c.over {
		return b, false, nil
	}
	more := false
	for i := range s.out {
		o := &s.out[i].ring
		if c.pos[i] < o.Start() {
			b = wire.AppendGap(b, byte(i+1), c.pos[i], o.Start())
			c.pos[i] = o.Start()
		}
		if have := int(o.End() - c.pos[i]); have > 0 {
			if n := min(have, chunk/2); len(b)+n+wire.HeaderLen+wire.OffsetLen <= cap(b) || len(b) == 0 {
				b = wire.AppendHeader(b, wire.Stdout+wire.Type(i), wire.OffsetLen+n)
				b = appendU64(b, c.pos[i])
				at := len(b)
				b = slices.Grow(b, n)[:at+n]
				o.ReadAt(b[at:], c.pos[i])
				c.pos[i] += uint64(n)
			}
		}
		switch {
		case c.pos[i] < o.End():
			more = true
		case s.out[i].eof && !c.eofSent[i]:
			c.eofSent[i] = true
			b = wire.AppendStreamOffset(b, wire.OutEOF, byte(i+1), o.End())
		}
	}
	if !c.observe {
		// Alone, a few bytes are not worth a frame: the client keeps them until the next.
		if to := s.acknowledgeable(c); to >= c.inSent+ackEvery || len(b) > 0 && to > c.inSent {
			b = wire.AppendOffset(b, wire.StdinAck, to)
			c.inSent = to
		}
	}
	if s.exit != nil && !more {
		b = wire.AppendRaw(b, wire.ExitT, wire.JSON(s.exit))
		return b, true, nil
	}
	return b, false, nil
}

func appendU64(b []byte, v uint64) []byte {
	return append(b, byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}
