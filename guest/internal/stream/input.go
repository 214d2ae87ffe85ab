package stream

import (
	"io"
	"syscall"
	"time"

	"vmsan/guest/internal/wire"
)

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
