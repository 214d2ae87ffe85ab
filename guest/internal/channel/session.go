package channel

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vmsan/guest/internal/ring"
)

const (
	// maxWrite is what one write to a virtio-serial port takes.
	maxWrite = 32 << 10
	// maxQueue is more than the HTTP/2 windows let the host send unread: a
	// session that passes it breaks the protocol and is ended.
	maxQueue = 16 << 20
	// firstReset is how long a socket may stay without a RESET.
	firstReset = 30 * time.Second
)

// Stream is what a channel runs over.
type Stream interface {
	io.ReadWriteCloser
	// SetWriteDeadline interrupts a Write that is under way when t is past.
	SetWriteDeadline(t time.Time) error
}

// Taker takes a session's input in the goroutine that reads the stream, which saves the way
// through a queue and another goroutine.
type Taker interface {
	// Take gets bytes of the session; they are only valid during the call.
	Take(p []byte)
	// Lost is called once, when the session is over.
	Lost()
}

// Mux serves one stream: it scans the input and keeps at most one session alive.
type Mux struct {
	stream Stream
	serve  func(net.Conn)
	// direct, if there is one, gives each session's Taker, before its first byte.
	direct func(net.Conn) Taker
	// writing is held during each write to the stream.
	writing sync.Mutex
	current *session
}

// Run scans stream until it ends, calling serve (which must not block) with
// each session's connection. It closes the stream.
func Run(stream Stream, pin *Pin, serve func(net.Conn)) error {
	return (&Mux{stream: stream, serve: serve}).run(pin)
}

// RunDirect is Run for sessions that take their input themselves; of their connections only
// writing and closing are of use.
func RunDirect(stream Stream, pin *Pin, direct func(net.Conn) Taker) error {
	return (&Mux{stream: stream, serve: func(net.Conn) {}, direct: direct}).run(pin)
}

func (m *Mux) run(pin *Pin) error {
	scanner := NewScanner(pin, m)
	stream := m.stream
	buf := make([]byte, 64<<10)
	defer m.Kill()
	defer stream.Close()
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			scanner.Feed(buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// Data implements Sink.
func (m *Mux) Data(p []byte) {
	if s := m.current; s != nil && !s.push(p) {
		m.Kill()
	}
}

// Kill implements Sink: when it returns, nothing of the session reads or writes any more.
func (m *Mux) Kill() {
	s := m.current
	if s == nil {
		return
	}
	m.current = nil
	s.die()
	// A writer that is inside the stream's Write holds the lock: interrupt it.
	// It has seen s alive; any later one sees that it is dead.
	if err := m.stream.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		// The stream is closed already, which interrupts as well.
		return
	}
	m.writing.Lock()
	_ = m.stream.SetWriteDeadline(time.Time{}) // as above
	m.writing.Unlock()
}

// Open implements Sink.
func (m *Mux) Open(t Token, n Nonce) {
	s := &session{mux: m, in: ring.New(maxQueue)}
	s.cond.L = &s.mu
	if m.direct != nil {
		s.taker = m.direct(s)
	}
	m.current = s
	// In a goroutine of its own: the host may not be reading, and the scanner must go on.
	go func() {
		if _, err := s.Write(append(t[:], n[:]...)); err == nil {
			m.serve(s)
		}
	}()
}

// session is one HTTP/2 connection's transport.
type session struct {
	mux  *Mux
	mu   sync.Mutex
	cond sync.Cond
	in   ring.Ring
	dead atomic.Bool
	// taker gets the input instead of in.
	taker Taker
}

// push queues input; false means that the peer ignores the windows.
func (s *session) push(p []byte) bool {
	if s.taker != nil {
		if !s.dead.Load() {
			s.taker.Take(p)
		}
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.Load() {
		return true
	}
	if s.in.Append(p) < len(p) {
		return false
	}
	s.cond.Signal()
	return true
}

func (s *session) die() {
	if s.dead.Swap(true) {
		return
	}
	if s.taker != nil {
		s.taker.Lost()
	}
	s.mu.Lock()
	s.in.Free()
	s.cond.Broadcast()
	s.mu.Unlock()
}

// Read implements net.Conn.
func (s *session) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.in.Len() == 0 {
		if s.dead.Load() {
			return 0, io.EOF
		}
		s.cond.Wait()
	}
	n := s.in.ReadAt(p, s.in.Start())
	s.in.DiscardTo(s.in.Start() + uint64(n))
	return n, nil
}

// Write implements net.Conn.
func (s *session) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := s.writeOnce(p[done:min(len(p), done+maxWrite)])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *session) writeOnce(p []byte) (int, error) {
	s.mux.writing.Lock()
	defer s.mux.writing.Unlock()
	if s.dead.Load() {
		return 0, net.ErrClosed
	}
	return s.mux.stream.Write(p)
}

// Close implements net.Conn. The stream stays: it may carry the next session.
func (s *session) Close() error {
	s.die()
	if c, ok := s.mux.stream.(net.Conn); ok {
		// On a socket a session's end is the connection's end.
		return c.Close()
	}
	return nil
}

type addr struct{}

func (addr) Network() string { return "vmsan" }
func (addr) String() string  { return "host" }

// LocalAddr implements net.Conn.
func (s *session) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (s *session) RemoteAddr() net.Addr { return addr{} }

// SetDeadline implements net.Conn; there are no time limits on the host.
func (s *session) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s *session) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (s *session) SetWriteDeadline(time.Time) error { return nil }
