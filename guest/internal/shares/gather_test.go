package shares

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// What nobody waits for goes along with the next request, in order; without one it goes by itself.
func TestGather(t *testing.T) {
	conn, _, frames := host(t)
	var answers [][]byte
	g := &gatherer{link: newLink(conn), answer: func(b []byte) { answers = append(answers, bytes.Clone(b)) }}
	reading, writing := make([]byte, 24), make([]byte, 24)
	writing[8] = 2 // O_RDWR
	opcode := func(f sharewire.Frame) uint32 { return binary.LittleEndian.Uint32(f.Payload[4:]) }
	unique := func(f sharewire.Frame) uint64 { return binary.LittleEndian.Uint64(f.Payload[8:]) }

	for _, b := range [][]byte{
		request(fuse.OpForget, 2, make([]byte, 8)...), request(fuse.OpRelease, 4, reading...), request(fuse.OpReleasedir, 6, reading...),
	} {
		if !g.take(b) {
			t.Fatal("over")
		}
	}
	g.mu.Lock()
	waiting := len(g.frames)
	g.mu.Unlock()
	if waiting == 0 && len(frames) == 0 {
		t.Error("it is lost")
	}
	if len(answers) != 2 || binary.LittleEndian.Uint64(answers[1][8:]) != 6 || len(answers[1]) != fuse.OutHeaderLen {
		t.Errorf("answers %v", answers)
	}
	if !g.take(request(fuse.OpLookup, 8, 'a', 0)) {
		t.Fatal("over")
	}
	for i, want := range []struct {
		op     uint32
		unique uint64
	}{{fuse.OpForget, 2}, {fuse.OpRelease, fuse.NoReply}, {fuse.OpReleasedir, fuse.NoReply}, {fuse.OpLookup, 8}} {
		if f := <-frames; opcode(f) != want.op || unique(f) != want.unique {
			t.Errorf("%d: opcode %d, unique %d", i, opcode(f), unique(f))
		}
	}
	g.link.mu.Lock()
	if g.link.busy != 1 {
		t.Errorf("%d answers are waited for", g.link.busy)
	}
	g.link.mu.Unlock()

	// Attributes that no share has are asked for in vain, here already.
	answers = nil
	g.take(request(fuse.OpGetxattr, 9, append(make([]byte, 8), "security.capability\x00"...)...))
	if len(answers) != 1 || binary.LittleEndian.Uint64(answers[0][8:]) != 9 || int32(binary.LittleEndian.Uint32(answers[0][4:])) != -95 {
		t.Errorf("answers %v", answers)
	}
	g.take(request(fuse.OpGetxattr, 10, append(make([]byte, 8), "user.mine\x00"...)...))
	if f := <-frames; unique(f) != 10 || len(answers) != 1 {
		t.Errorf("unique %d, answers %v", unique(f), answers)
	}

	// Closed behind a writer: at once; large ones behind what waits.
	g.take(request(fuse.OpRelease, 10, writing...))
	if f := <-frames; opcode(f) != fuse.OpRelease || unique(f) != fuse.NoReply {
		t.Errorf("opcode %d, unique %d", opcode(f), unique(f))
	}
	g.take(request(fuse.OpForget, 12, make([]byte, 8)...))
	g.take(request(fuse.OpWrite, 14, make([]byte, gatherMax)...))
	if first, second := <-frames, <-frames; opcode(first) != fuse.OpForget || opcode(second) != fuse.OpWrite {
		t.Errorf("opcodes %d, %d", opcode(first), opcode(second))
	}
	g.take(request(fuse.OpForget, 16, make([]byte, 8)...))
	if f := <-frames; opcode(f) != fuse.OpForget {
		t.Errorf("opcode %d", opcode(f))
	}
}

// What the host has said of a directory ahead is the answer once, until something may have changed it.
func TestAhead(t *testing.T) {
	conn, _, frames := host(t)
	var answers [][]byte
	g := &gatherer{link: newLink(conn), answer: func(b []byte) { answers = append(answers, bytes.Clone(b)) }}
	said := append(binary.LittleEndian.AppendUint64(nil, 0), make([]byte, fuse.AttrOutLen)...)
	said[8] = 77
	asks := func(unique uint64, flags byte) []byte {
		return request(fuse.OpGetattr, unique, append([]byte{flags}, make([]byte, 15)...)...)
	}
	here := func(what string, want bool) {
		t.Helper()
		answers = nil
		if !g.take(asks(9, 0)) {
			t.Fatal("over")
		}
		if got := len(answers) == 1 && answers[0][fuse.OutHeaderLen] == 77 && binary.LittleEndian.Uint64(answers[0][8:]) == 9; got != want {
			t.Errorf("%s: answers %v", what, answers)
		}
		if !want {
			<-frames
		}
	}
	here("nothing was said", false)
	g.ahead.put(said)
	here("said", true)
	here("a second time", false)
	for name, change := range map[string]func(){
		"forgotten":       func() { g.ahead.drop(0) },
		"another session": func() { g.ahead.clear() },
		"changed":         func() { g.take(request(fuse.OpSetattr, 3, make([]byte, 88)...)); <-frames },
		"moved into":      func() { g.take(request(fuse.OpRename2, 3, make([]byte, 20)...)); <-frames },
		"of an open file": func() { g.take(asks(3, 1)); <-frames },
		"long ago": func() {
			g.ahead.byNode[0] = attributes{said[8:], time.Now().Add(-2 * aheadLife)}
		},
		"cut off": func() { g.ahead.clear(); g.ahead.put(said[:50]) },
	} {
		g.ahead.put(said)
		change()
		here(name, false)
	}
	g.ahead.put(said)
	g.take(request(fuse.OpLookup, 3, 'a', 0))
	<-frames
	here("after a look", true)
}
