package stream

import (
	"io"
)

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
