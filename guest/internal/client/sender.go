package client

import (
	"io"
	"sync"
	"time"
)

const (
	// lastWords is how long what is left to be said may take at a connection's end.
	lastWords = 2 * time.Second
	// maxWaiting is how many bytes may wait to be written. The credit for input keeps it below, unless an agent acknowledges
	// what it has not taken.
	maxWaiting = 4 * credit
)

// sender writes frames to a connection without holding up who has them: a daemon that takes nothing must stop
// neither who reads what it says nor the end.
type sender struct {
	mu      sync.Mutex
	cond    *sync.Cond
	to      io.WriteCloser
	queue   [][]byte
	waiting int
	// writing: some of it is with the connection; closed: nothing is written any more.
	writing, closed bool
}

func newSender(to io.WriteCloser) *sender {
	s := &sender{to: to}
	s.cond = sync.NewCond(&s.mu)
	go s.run()
	return s
}

// push has a frame written behind all others; the frame is the sender's then. Too many end the connection: whoever reads
// it sees that.
func (s *sender) push(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.queue = append(s.queue, frame)
	s.waiting += len(frame)
	if s.waiting > maxWaiting {
		s.closed, s.queue = true, nil
		_ = s.to.Close()
	}
	s.cond.Broadcast()
}

// flush waits until everything is written, but not for ever.
func (s *sender) flush() {
	late := time.AfterFunc(lastWords, s.close)
	defer late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && (s.writing || len(s.queue) > 0) {
		s.cond.Wait()
	}
}

// close drops what has not been written.
func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.queue = true, nil
	s.cond.Broadcast()
}

func (s *sender) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.queue) == 0 && !s.closed {
			s.cond.Wait()
		}
		if s.closed {
			return
		}
		frames := s.queue
		s.queue, s.waiting, s.writing = nil, 0, true
		s.mu.Unlock()
		var err error
		for _, frame := range frames {
			if _, err = s.to.Write(frame); err != nil {
				break
			}
		}
		s.mu.Lock()
		s.writing = false
		// That it is broken shows when it is read.
		s.closed = s.closed || err != nil
		s.cond.Broadcast()
	}
}
