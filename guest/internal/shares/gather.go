package shares

import (
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

const (
	// gatherWait is how long what nobody waits for may wait for a request to go along with; closedWait is it for
	// a file that was written, since somebody on the host may be about to execute it (ETXTBSY).
	gatherWait = 10 * time.Millisecond
	closedWait = time.Millisecond
	// gatherMax is how many bytes of it may, and of the request.
	gatherMax = 16 << 10
)

// gatherer takes one mount's requests to the host. A message of its own costs the guest and the host
// as much for a forgotten node or a closed file as for a request that somebody waits for. So
// those go along with the next one, in order.
type gatherer struct {
	link  *link
	share byte
	// answer gives the kernel a reply.
	answer func(b []byte)
	ahead  ahead

	mu sync.Mutex
	// frames have not been sent.
	frames []byte
	// timer sends what is left, at due; nil before the first time.
	timer *time.Timer
	due   time.Time
}

// take has a request, which lies behind room for a frame's header, sent; false: the mount is over.
func (g *gatherer) take(b []byte) bool {
	message := b[sharewire.HeaderLen:]
	if unique, asks := fuse.AsksForXattr(message, sharewire.UserXattr); asks {
		// As the host would say. The kernel asks for a capability before the first write to each file.
		g.answer(fuse.EmptyReply(unique, int(syscall.EOPNOTSUPP)))
		return true
	}
	if reply := g.ahead.reply(message); reply != nil {
		g.answer(reply)
		return true
	}
	if unique, closing := fuse.Closing(message); closing {
		g.answer(fuse.EmptyReply(unique, 0))
		fuse.WantNoReply(message)
	}
	sharewire.PutHeader(g.share, sharewire.Message, b)
	g.mu.Lock()
	defer g.mu.Unlock()
	canWait, written := fuse.CanWait(message)
	if !canWait {
		return g.send(b, fuse.Answered(message))
	}
	alone := len(g.frames) == 0
	g.frames = append(g.frames, b...)
	if len(g.frames) > gatherMax {
		return g.flush()
	}
	wait := gatherWait
	if written {
		wait = closedWait
	}
	if due := time.Now().Add(wait); alone || due.Before(g.due) {
		g.due = due
		g.flushAfter(wait)
	}
	return true
}

// flushAfter has what has been gathered sent after a while. The lock is held.
func (g *gatherer) flushAfter(wait time.Duration) {
	if g.timer != nil {
		g.timer.Reset(wait)
		return
	}
	g.timer = time.AfterFunc(wait, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.flush()
	})
}

// send sends a frame behind those that have been gathered. The lock is held.
func (g *gatherer) send(b []byte, answered bool) bool {
	switch {
	case len(g.frames) == 0:
	case len(b) > gatherMax: // to be copied
		if !g.flush() {
			return false
		}
	default:
		b = append(g.frames, b...)
		g.frames = b[:0]
		g.timer.Stop()
	}
	return g.link.forward(b, answered)
}

// flush sends what has been gathered. The lock is held.
func (g *gatherer) flush() bool {
	if len(g.frames) == 0 {
		return true
	}
	sent := g.link.forward(g.frames, false)
	g.frames = g.frames[:0]
	return sent
}
