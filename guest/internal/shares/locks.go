package shares

import (
	"bytes"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// How long after one try for a lock the next one comes: at first, and at most.
const (
	firstAgain = 2 * time.Millisecond
	lastAgain  = 64 * time.Millisecond
)

// locks are requests of programs that wait for a lock of a file, which VMs may hold in turns. The host says at once whether
// it can be had; what waits does so here, in the guest's memory, and asks again: so nothing is under way for long, and a
// VM whose programs wait can sleep.
type locks struct {
	mu    sync.Mutex
	waits map[uint64]*wait
}

type wait struct {
	// frame asks, once more.
	frame []byte
	again time.Duration
	// asked: an answer is to come. over: whoever waited has been interrupted.
	asked, over bool
}

// ask notes a request that waits, before it is sent; the frame begins with room for its header.
func (l *locks) ask(frame []byte) {
	message := frame[sharewire.HeaderLen:]
	if fuse.OpcodeOf(message) != fuse.OpSetlkw {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits == nil {
		l.waits = map[uint64]*wait{}
	}
	l.waits[fuse.UniqueOf(message)] = &wait{frame: bytes.Clone(frame), again: firstAgain, asked: true}
}

// interrupt ends a wait. mine: the message is about one; answer: it is the waiting program's to have now.
func (l *locks) interrupt(message []byte) (answer []byte, mine bool) {
	unique, ok := fuse.Interrupts(message)
	if !ok {
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.waits[unique]
	switch {
	case w == nil:
		return nil, false
	case w.asked:
		w.over = true // it may just have got the lock
		return nil, true
	}
	delete(l.waits, unique)
	return fuse.EmptyReply(unique, int(syscall.EINTR)), true
}

// replied looks at a reply of the host's, and gives what the kernel is to have; nil: the lock is asked for again by send.
func (l *locks) replied(reply []byte, send func(frame []byte)) []byte {
	unique, errno := fuse.Failed(reply)
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.waits[unique]
	if w == nil {
		return reply
	}
	if errno != int(syscall.EAGAIN) {
		delete(l.waits, unique)
		return reply
	}
	if w.over {
		delete(l.waits, unique)
		return fuse.EmptyReply(unique, int(syscall.EINTR))
	}
	w.asked = false
	time.AfterFunc(w.again, func() {
		l.mu.Lock()
		if l.waits[unique] != w {
			l.mu.Unlock()
			return
		}
		w.asked, w.again = true, min(2*w.again, lastAgain)
		frame := bytes.Clone(w.frame)
		l.mu.Unlock()
		send(frame)
	})
	return nil
}
