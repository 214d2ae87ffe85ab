package shares

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"vmsan/guest/internal/sharewire"
)

// link is the mounts' way to the host. While it is held nothing is under way, so that the VM's
// memory can be written to a file and go on with another file server, which knows
// what this one did.
type link struct {
	mu   sync.Mutex
	cond sync.Cond
	// conn is nil while nobody is there.
	conn *sharewire.Conn
	// busy counts requests without a reply and what is being written; raising what raises events,
	// which makes requests in turn.
	busy, raising int
	// held: nothing goes to the host. quiet: no more events are raised.
	held, quiet bool
	// moved: the VM's memory has been in a file; only another session makes it go on.
	moved bool
	// number is under which the host has kept what it knows, 0 if it has not.
	number uint64
	kept   chan bool
	over   bool
}

func newLink(conn *sharewire.Conn) *link {
	l := &link{conn: conn, kept: make(chan bool, 1)}
	l.cond.L = &l.mu
	return l
}

// begin waits until something may go to the host and counts it; nil: the mounts are over.
func (l *link) begin(raises bool) *sharewire.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for (l.held || l.conn == nil || raises && l.quiet) && !l.over {
		l.cond.Wait()
	}
	if l.over {
		return nil
	}
	if raises {
		l.raising++
	} else {
		l.busy++
	}
	return l.conn
}

// done is begin's end.
func (l *link) done(raises bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := &l.busy
	if raises {
		count = &l.raising
	}
	*count--
	if *count == 0 && l.quiet {
		l.cond.Broadcast()
	}
}

// forward sends whole frames, of which one at most has a request that is answered.
func (l *link) forward(frames []byte, answered bool) bool {
	conn := l.begin(false)
	if conn == nil {
		return false
	}
	err := conn.WriteFrames(frames)
	if err != nil || !answered {
		l.done(false)
	}
	return err == nil
}

// replied notes a reply.
func (l *link) replied() { l.done(false) }

// is tells whether a connection is the one in use.
func (l *link) is(conn *sharewire.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn == conn
}

// hold waits until nothing is under way, keeps it so, and has the host keep what it knows.
func (l *link) hold(limit time.Duration) error {
	var number [8]byte
	_, _ = rand.Read(number[:]) // never fails on Linux
	number[0] |= 1              // 0 means none
	deadline := time.Now().Add(limit)
	// Broadcast at the limit, for who waits for it.
	timer := time.AfterFunc(limit, l.cond.Broadcast)
	defer timer.Stop()
	l.mu.Lock()
	l.quiet, l.number = true, 0
	wait := func(count *int) {
		for *count > 0 && l.conn != nil && time.Now().Before(deadline) {
			l.cond.Wait()
		}
	}
	wait(&l.raising)
	l.held = true
	wait(&l.busy)
	conn, still := l.conn, l.raising == 0 && l.busy == 0
	l.mu.Unlock()
	if conn == nil || !still {
		return errors.New("the host's file server does not answer")
	}
	select {
	case <-l.kept: // of an earlier time
	default:
	}
	if err := conn.Write(0, sharewire.Hold, number[:]); err != nil {
		return err
	}
	select {
	case kept := <-l.kept:
		if !kept {
			return errors.New("the host's file server could not keep what it knows")
		}
	case <-time.After(time.Until(deadline)):
		return errors.New("the host's file server does not answer")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number = binary.LittleEndian.Uint64(number[:])
	return nil
}

// answered takes the host's answer to Hold.
func (l *link) answered(payload []byte) {
	select {
	case l.kept <- len(payload) > 0 && payload[0] == 1:
	default: // nobody has asked
	}
}

// goOn ends hold, unless the VM's memory has been in a file.
func (l *link) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.moved {
		l.held, l.quiet = false, false
		l.cond.Broadcast()
	}
}

// move notes that the memory has been in a file: what it knows as the host is gone.
func (l *link) move() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		l.moved, l.conn = true, nil
	}
}

// heldAs tells whether it is held and the host has kept what it knew under that number.
func (l *link) heldAs(number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held && number != 0 && l.number == number
}

// goOnWith ends hold with another session, which knows what the old one did.
func (l *link) goOnWith(conn *sharewire.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.held, l.quiet, l.moved = conn, false, false, false
	l.cond.Broadcast()
}

// leave notes the end of a session; false: what it served is over.
func (l *link) leave(conn *sharewire.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.conn = nil
		l.cond.Broadcast()
	}
	return l.held && l.number != 0
}

// end lets go whoever waits.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.cond.Broadcast()
}
