package fileserver

import (
	"encoding/binary"
	"net"
	"testing"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// agent is a connection and what the agent at its other end gets.
func agent(t *testing.T) (*sharewire.Conn, <-chan sharewire.Frame) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close() })
	frames := make(chan sharewire.Frame, 4)
	go func() {
		conn := sharewire.NewConn(far)
		for {
			f, err := conn.Read(func(size int) []byte { return make([]byte, size) })
			if err != nil {
				close(frames)
				return
			}
			frames <- f
		}
	}()
	return sharewire.NewConn(near), frames
}

// Who puts no number on a request gets no answer, and the request is carried out.
func TestNoReply(t *testing.T) {
	g := newGuest(t, Options{})
	conn, frames := agent(t)
	handle, err := g.open(g.find(fuse.RootID, "file"), 0)
	check(t, err)
	room := make([]byte, sharewire.MaxFrame)
	body := append(binary.LittleEndian.AppendUint64(nil, handle), zeros(16)...)
	node := g.find(fuse.RootID, "file")
	g.share.serve(conn, &fuse.Request{Opcode: fuse.OpRelease, Node: node, Body: body}, room[:0])
	g.share.serve(conn, &fuse.Request{Opcode: fuse.OpGetattr, Unique: 5, Node: node, Body: zeros(16)}, room[:0])
	if f := <-frames; binary.LittleEndian.Uint64(f.Payload[8:]) != 5 {
		t.Errorf("an answer to %d", binary.LittleEndian.Uint64(f.Payload[8:]))
	}
	if _, err := g.read(handle); err == nil {
		t.Error("the handle is still open")
	}
}

// A directory's attributes go ahead of the reply to what has changed it.
func TestAttributesAhead(t *testing.T) {
	g := newGuest(t, Options{})
	conn, frames := agent(t)
	sub := g.find(fuse.RootID, "sub")
	room := make([]byte, sharewire.MaxFrame)
	ask := func(op uint32, body ...byte) {
		g.share.serve(conn, &fuse.Request{Opcode: op, Unique: 5, Node: sub, Body: body}, room[:0])
	}
	ask(fuse.OpMkdir, append(zeros(8), "new\x00"...)...)
	f := <-frames
	want, err := g.ask(fuse.OpGetattr, sub, zeros(16))
	check(t, err)
	if f.Kind != sharewire.DirAttributes || binary.LittleEndian.Uint64(f.Payload) != sub || string(f.Payload[8:]) != string(want) {
		t.Errorf("kind %d, %v instead of %v", f.Kind, f.Payload, want)
	}
	if f := <-frames; f.Kind != sharewire.Message {
		t.Errorf("kind %d", f.Kind)
	}
	ask(fuse.OpMkdir, append(zeros(8), "new\x00"...)...)
	if f := <-frames; f.Kind != sharewire.Message {
		t.Errorf("ahead of a failure: kind %d", f.Kind)
	}
}
