package fileserver

import (
	"encoding/binary"
	"net"
	"testing"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// Who puts no number on a request gets no answer, and the request is carried out.
func TestNoReply(t *testing.T) {
	g := newGuest(t, Options{})
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close() })
	replies := make(chan uint64, 4)
	go func() {
		conn := sharewire.NewConn(far)
		for {
			f, err := conn.Read(func(size int) []byte { return make([]byte, size) })
			if err != nil {
				return
			}
			replies <- binary.LittleEndian.Uint64(f.Payload[8:])
		}
	}()
	handle, err := g.open(g.find(fuse.RootID, "file"), 0)
	check(t, err)
	conn := sharewire.NewConn(near)
	room := make([]byte, sharewire.MaxFrame)
	body := append(binary.LittleEndian.AppendUint64(nil, handle), zeros(16)...)
	node := g.find(fuse.RootID, "file")
	g.share.serve(conn, &fuse.Request{Opcode: fuse.OpRelease, Node: node, Body: body}, room[:0])
	g.share.serve(conn, &fuse.Request{Opcode: fuse.OpGetattr, Unique: 5, Node: node, Body: zeros(16)}, room[:0])
	if got := <-replies; got != 5 {
		t.Errorf("an answer to %d", got)
	}
	if _, err := g.read(handle); err == nil {
		t.Error("the handle is still open")
	}
}
