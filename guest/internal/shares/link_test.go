package shares

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// request is a message of the kernel's behind room for a frame's header.
func request(op uint32) []byte {
	b := make([]byte, sharewire.HeaderLen+fuse.InHeaderLen)
	binary.LittleEndian.PutUint32(b[sharewire.HeaderLen+4:], op)
	return b
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
	if !l.forward(0, request(fuse.OpLookup)) || !l.forward(0, request(fuse.OpForget)) {
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
	go func() { sent <- l.forward(0, request(fuse.OpRead)) }()
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
	if !l.forward(0, request(fuse.OpForget)) {
		t.Error("it does not go on")
	}
	l.begin(false)
	if l.hold(50*time.Millisecond) == nil {
		t.Error("held with a request under way")
	}
	l.end()
	if l.forward(0, request(fuse.OpForget)) {
		t.Error("it goes on behind its end")
	}
}
