package client

import (
	"io"
	"sync"

	"vmsan/guest/internal/wire"
)

const (
	// credit is how far beyond the last acknowledgement input may be sent.
	credit = 1 << 20
	// inputChunk is how much is read and sent at a time.
	inputChunk = 64 << 10
)

// input is the command's input: kept until the agent has it, sent again when the connection was lost.
type input struct {
	mu   sync.Mutex
	cond *sync.Cond
	// kept is what has no acknowledgement yet; start and sent are offsets: of its first byte, and of the
	// next one for this connection.
	kept        []byte
	start, sent uint64
	ended       bool
	eofSent     bool
	// send is nil while there is no connection.
	send func(frame []byte)
	// closed: the command is over.
	closed bool
	// shared: other clients may type too, so the agent may count more input than ours.
	shared bool
}

func newInput(shared bool) *input {
	n := &input{shared: shared}
	n.cond = sync.NewCond(&n.mu)
	return n
}

// read sends what r gives, to its end; filter may take bytes away.
func (n *input) read(r io.Reader, filter func([]byte) []byte) {
	buf := make([]byte, inputChunk)
	for {
		n.mu.Lock()
		for len(n.kept) > credit-inputChunk && !n.closed {
			n.cond.Wait()
		}
		closed := n.closed
		n.mu.Unlock()
		if closed {
			return
		}
		got, err := r.Read(buf)
		n.mu.Lock()
		if got > 0 {
			n.kept = append(n.kept, filter(buf[:got])...)
		}
		// An input that cannot be read has ended.
		n.ended = n.ended || err != nil
		n.pump()
		n.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// connect sends on a new connection, from what the agent has got. False when it has more than was sent.
func (n *input) connect(from uint64, send func([]byte)) bool {
	if !n.acknowledge(from) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.send, n.sent, n.eofSent = send, n.start, false
	n.pump()
	return true
}

// disconnect forgets the connection.
func (n *input) disconnect() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.send = nil
}

// close lets the reader go.
func (n *input) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed, n.send = true, nil
	n.cond.Broadcast()
}

// acknowledge drops what the agent has. False when it claims more than was sent.
func (n *input) acknowledge(offset uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	end := n.start + uint64(len(n.kept))
	switch {
	case offset <= n.start:
	case offset <= end:
		n.kept = append(n.kept[:0], n.kept[offset-n.start:]...)
		n.start = offset
	case !n.shared:
		return false
	default:
		// Another client has typed: what is typed next here comes behind that.
		n.kept, n.start = n.kept[:0], offset
	}
	n.sent = max(n.sent, n.start)
	n.cond.Broadcast()
	n.pump()
	return true
}

// pump sends what has not been sent; the lock is held.
func (n *input) pump() {
	if n.send == nil {
		return
	}
	for {
		rest := n.kept[n.sent-n.start:]
		if len(rest) == 0 {
			break
		}
		rest = rest[:min(len(rest), inputChunk)]
		n.send(wire.AppendData(nil, wire.Stdin, n.sent, rest))
		n.sent += uint64(len(rest))
	}
	if n.ended && !n.eofSent {
		n.eofSent = true
		n.send(wire.AppendOffset(nil, wire.StdinEOF, n.sent))
	}
}
