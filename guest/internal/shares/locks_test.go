package shares

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
)

// A program that waits for a lock is answered once it has it, or is interrupted; nothing is under way in between.
func TestLocks(t *testing.T) {
	conn, _, frames := host(t)
	answers := make(chan []byte, 4)
	g := &gatherer{link: newLink(conn), answer: func(b []byte) { answers <- bytes.Clone(b) }}
	waits := func(unique uint64) {
		t.Helper()
		if !g.take(request(fuse.OpSetlkw, unique, make([]byte, 48)...)) {
			t.Fatal("over")
		}
	}
	asked := func(unique uint64) {
		t.Helper()
		if f := <-frames; fuse.OpcodeOf(f.Payload) != fuse.OpSetlkw || fuse.UniqueOf(f.Payload) != unique {
			t.Fatalf("opcode %d, unique %d", fuse.OpcodeOf(f.Payload), fuse.UniqueOf(f.Payload))
		}
	}
	replies := func(unique uint64, errno syscall.Errno) {
		g.reply(fuse.EmptyReply(unique, int(errno)))
		g.link.replied()
	}
	answered := func(unique uint64, errno syscall.Errno) {
		t.Helper()
		if got, failed := fuse.Failed(<-answers); got != unique || failed != int(errno) {
			t.Fatalf("unique %d, error %d", got, failed)
		}
	}
	interrupt := func(unique uint64) {
		g.take(request(fuse.OpInterrupt, unique|1, binary.LittleEndian.AppendUint64(nil, unique)...))
	}
	waits(2)
	for range 3 {
		asked(2)
		replies(2, syscall.EAGAIN)
	}
	asked(2)
	replies(2, 0)
	answered(2, 0)
	// Interrupted while it is being asked for: what the host says counts.
	waits(4)
	asked(4)
	interrupt(4)
	replies(4, syscall.EAGAIN)
	answered(4, syscall.EINTR)
	waits(6)
	asked(6)
	interrupt(6)
	replies(6, 0)
	answered(6, 0)
	// Interrupted in between, however often it has been asked for until then.
	waits(8)
	asked(8)
	g.locks.mu.Lock()
	g.locks.waits[8].again = 1 << 40 // as if for ever
	g.locks.mu.Unlock()
	replies(8, syscall.EAGAIN)
	g.link.mu.Lock()
	if g.link.busy != 0 {
		t.Errorf("%d requests are under way", g.link.busy)
	}
	g.link.mu.Unlock()
	interrupt(8)
	answered(8, syscall.EINTR)
	if len(g.locks.waits) != 0 {
		t.Errorf("%d wait", len(g.locks.waits))
	}
	// Of anything else it is the host's.
	interrupt(10)
	if f := <-frames; fuse.OpcodeOf(f.Payload) != fuse.OpInterrupt {
		t.Errorf("opcode %d", fuse.OpcodeOf(f.Payload))
	}
}
