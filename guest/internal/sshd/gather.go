package sshd

import (
	"io"
	"os"
	"sync"
	"time"
)

const (
	// gatherLimit is how many bytes may wait to be written.
	gatherLimit = 256 << 10
	// gatherWait bounds the time for what is left at the end.
	gatherWait = time.Second
)

// gather writes what comes in quick succession at once. The end of a session is three packets, and each write
// costs a wake-up of every process on the way to the client.
type gather struct {
	out     *os.File
	mu      sync.Mutex
	changed sync.Cond
	pending []byte
	err     error
	closed  bool
	done    chan struct{}
}

func newGather(out *os.File) *gather {
	g := &gather{out: out, done: make(chan struct{})}
	g.changed.L = &g.mu
	go g.run()
	return g
}

// Write takes p, once there is room for it. What went wrong with the bytes before is its error.
func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && !g.closed && len(g.pending) > 0 && len(g.pending)+len(p) > gatherLimit {
		g.changed.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	if g.closed {
		return 0, io.ErrClosedPipe
	}
	g.pending = append(g.pending, p...)
	g.changed.Broadcast()
	return len(p), nil
}

func (g *gather) run() {
	defer close(g.done)
	var writing []byte
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for len(g.pending) == 0 && !g.closed {
			g.changed.Wait()
		}
		if len(g.pending) == 0 {
			return
		}
		writing, g.pending = g.pending, writing[:0]
		g.changed.Broadcast()
		g.mu.Unlock()
		_, err := g.out.Write(writing)
		g.mu.Lock()
		if err != nil {
			g.err = err
			g.changed.Broadcast()
			return
		}
	}
}

// close has the rest written, if the reader takes it soon.
func (g *gather) close() {
	g.mu.Lock()
	g.closed = true
	g.changed.Broadcast()
	g.mu.Unlock()
	select {
	case <-g.done:
	case <-time.After(gatherWait):
	}
}
