package shares

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// request is a message of the kernel's behind room for a frame's header; body follows the message's header.
func request(op uint32, unique uint64, body ...byte) []byte {
	b := make([]byte, sharewire.HeaderLen+fuse.InHeaderLen, sharewire.HeaderLen+fuse.InHeaderLen+len(body))
	binary.LittleEndian.PutUint32(b[sharewire.HeaderLen+4:], op)
	binary.LittleEndian.PutUint64(b[sharewire.HeaderLen+8:], unique)
	return append(b, body...)
}

// forward sends one as its mount does.
func forward(l *link, op uint32) bool {
	g := &gatherer{link: l}
	if !g.take(request(op, 1)) {
		return false
	}
	// Its timer may be about to do the same.
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flush()
}

// host is a link's other end: frames as they come.
func host(t *testing.T) (*sharewire.Conn, *sharewire.Conn, <-chan sharewire.Frame) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close() })
	conn := sharewire.NewConn(far)
	frames := make(chan sharewire.Frame, 16)
	go func() {
		for {
			f, err := conn.Read(func(size int) []byte { return make([]byte, size) })
			if err != nil {
				close(frames)
				return
			}
			frames <- f
		}
	}()
	return sharewire.NewConn(near), conn, frames
}

// A link is held once all is answered; what comes then waits for the session that goes on.
func TestHold(t *testing.T) {
	conn, _, frames := host(t)
	l := newLink(conn)
	if !forward(l, fuse.OpLookup) || !forward(l, fuse.OpForget) {
		t.Fatal("not forwarded")
	}
	<-frames
	<-frames
	held := make(chan error)
	go func() { held <- l.hold(time.Minute) }()
	select {
	case f := <-frames:
		t.Fatalf("held with a request under way: frame %d", f.Kind)
	case <-time.After(100 * time.Millisecond):
	}
	l.replied()
	f := <-frames
	if f.Kind != sharewire.Hold || len(f.Payload) != 8 {
		t.Fatalf("frame %d", f.Kind)
	}
	l.answered([]byte{1})
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	number := binary.LittleEndian.Uint64(f.Payload)
	if l.heldAs(number+1) || !l.heldAs(number) {
		t.Error("held under another number")
	}
	sent := make(chan bool)
	go func() { sent <- forward(l, fuse.OpRead) }()
	l.move()
	l.goOn() // not by the session that it was
	select {
	case <-sent:
		t.Fatal("forwarded to a host that is not there")
	case <-time.After(100 * time.Millisecond):
	}
	next, _, after := host(t)
	l.goOnWith(next)
	if !<-sent || (<-after).Kind != sharewire.Message {
		t.Error("not forwarded to the next session")
	}
}

// Without an answer, or with a refusal, it is not held.
func TestHoldFails(t *testing.T) {
	conn, _, frames := host(t)
	l := newLink(conn)
	if l.hold(50*time.Millisecond) == nil || l.heldAs(0) {
		t.Error("held without an answer")
	}
	<-frames
	l.goOn()
	go func() {
		<-frames
		l.answered([]byte{0})
	}()
	if l.hold(time.Minute) == nil {
		t.Error("held though the host could not keep it")
	}
	l.goOn()
	if !forward(l, fuse.OpForget) {
		t.Error("it does not go on")
	}
	l.begin(false)
	if l.hold(50*time.Millisecond) == nil {
		t.Error("held with a request under way")
	}
	l.end()
	if forward(l, fuse.OpForget) {
		t.Error("it goes on behind its end")
	}
}
