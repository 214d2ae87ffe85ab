package client

import (
	"io"
	"sync"
)

const (
	// ackEvery is how many bytes are taken before the agent is told; the protocol asks for 256 KiB.
	ackEvery = 128 << 10
	// maxBacklog is how much is received and not yet written before reading stops; the agent's rings are smaller.
	maxBacklog = 8 << 20
)

// output writes what comes of one output, each byte once, in order, without holding up who receives it.
type output struct {
	mu   sync.Mutex
	cond *sync.Cond
	to   io.Writer
	// queue is what has been received and not yet handed to the writer; spare is reused for it.
	queue, spare []byte
	// received and consumed are offsets; acked is what the agent knows.
	received, consumed, acked uint64
	// lostAhead counts bytes that the guest dropped behind what is queued.
	lostAhead uint64
	writing   bool
	// unread: the reader of this output has left; the rest is thrown away.
	unread bool
	// failed is why it could not be written.
	failed error
	ended  bool
	onAck  func(offset uint64)
	onGone func()
}

func newOutput(to io.Writer, onAck func(uint64), onGone func()) *output {
	o := &output{to: to, onAck: onAck, onGone: onGone}
	o.cond = sync.NewCond(&o.mu)
	go o.run()
	return o
}

// accept takes the bytes of a data frame; false when they do not follow what came before.
func (o *output) accept(offset uint64, data []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset > o.received {
		return false
	}
	old := o.received - offset
	if old >= uint64(len(data)) {
		return true
	}
	fresh := data[old:]
	for len(o.queue) >= maxBacklog && !o.ended {
		o.cond.Wait()
	}
	o.received += uint64(len(fresh))
	o.queue = append(o.queue, fresh...)
	o.cond.Broadcast()
	return true
}

// skipTo leaves out what the guest has dropped.
func (o *output) skipTo(offset uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset <= o.received {
		return
	}
	if len(o.queue) == 0 && !o.writing {
		o.consumed = offset
	} else {
		o.lostAhead += offset - o.received
	}
	o.received = offset
}

// offsets gives what has been received and what has been written.
func (o *output) offsets() (received, consumed uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.received, o.consumed
}

// isUnread tells whether the reader of this output has left.
func (o *output) isUnread() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unread
}

// failure is why this output could not be written; nil if all of it was.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// drain waits until all that was received has been written.
func (o *output) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 || o.writing {
		o.cond.Wait()
	}
	o.ended = true
}

// run writes until the program ends.
func (o *output) run() {
	o.mu.Lock()
	for {
		for len(o.queue) == 0 {
			o.cond.Wait()
		}
		chunk := o.queue
		o.queue, o.spare = o.spare[:0], nil
		o.writing = true
		unread := o.unread
		o.mu.Unlock()
		gone := false
		var err error
		if !unread {
			if _, err = o.to.Write(chunk); err != nil {
				// The command is told, as a pipe would.
				gone = true
			}
		}
		o.mu.Lock()
		if gone {
			o.failed = err
		}
		o.writing = false
		o.spare = chunk[:0]
		o.consumed += uint64(len(chunk))
		if len(o.queue) == 0 {
			o.consumed += o.lostAhead
			o.lostAhead = 0
		}
		o.unread = o.unread || gone
		ack := o.consumed-o.acked >= ackEvery
		if ack {
			o.acked = o.consumed
		}
		offset := o.consumed
		o.cond.Broadcast()
		o.mu.Unlock()
		if gone {
			o.onGone()
		} else if ack {
			o.onAck(offset)
		}
		o.mu.Lock()
	}
}
