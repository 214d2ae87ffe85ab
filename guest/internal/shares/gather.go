package shares

import (
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

const (
	// gatherWait is how long what nobody waits for may wait for a request to go along with.
	gatherWait = 20 * time.Millisecond
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
	locks  locks

	mu sync.Mutex
	// frames have not been sent.
	frames []byte
	// timing: what is left will be sent.
	timing bool
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
	if answer, mine := g.locks.interrupt(message); mine {
		if answer != nil {
			g.answer(answer)
		}
		return true
	}
	if unique, closing := fuse.Closing(message); closing {
		g.answer(fuse.EmptyReply(unique, 0))
		fuse.WantNoReply(message)
	}
	sharewire.PutHeader(g.share, sharewire.Message, b)
	g.locks.ask(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !fuse.CanWait(message) {
		return g.send(b, fuse.Answered(message))
	}
	g.frames = append(g.frames, b...)
	if len(g.frames) > gatherMax {
		return g.flush()
	}
	if !g.timing {
		// Not stopped by what goes before: a timer for each message would cost more than it saves.
		g.timing = true
		time.AfterFunc(gatherWait, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.timing = false
			g.flush()
		})
	}
	return true
}

// reply gives the kernel a reply of the host's, unless it is that of a lock which is asked for again.
func (g *gatherer) reply(b []byte) {
	again := func(frame []byte) { g.link.forward(frame, true) } // false: the mount is over
	if b = g.locks.replied(b, again); b != nil {
		g.answer(b)
	}
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
