package sharewire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// Frames come out whole, however the stream is cut.
func TestParser(t *testing.T) {
	var stream []byte
	var want []Frame
	for i, size := range []int{0, 1, 7, 8, 9, 100, 5000, MaxFrame} {
		f := Frame{Share: byte(i), Kind: byte(i % 8), Payload: bytes.Repeat([]byte{byte(i)}, size)}
		head := binary.LittleEndian.AppendUint32(nil, uint32(size))
		stream = append(append(append(stream, head...), f.Share, f.Kind, 0, 0), f.Payload...)
		want = append(want, f)
	}
	for _, piece := range []int{1, 3, 8, 11, 4096, len(stream)} {
		var parser Parser
		got := 0
		for p := stream; len(p) > 0; {
			n := min(piece, len(p))
			err := parser.Feed(p[:n], func(f Frame) {
				w := want[got]
				if f.Share != w.Share || f.Kind != w.Kind || !bytes.Equal(f.Payload, w.Payload) {
					t.Fatalf("in pieces of %d: frame %d is another", piece, got)
				}
				got++
			})
			if err != nil {
				t.Fatal(err)
			}
			p = p[n:]
		}
		if got != len(want) {
			t.Errorf("in pieces of %d: %d frames", piece, got)
		}
	}
	var parser Parser
	if parser.Feed([]byte{0, 0, 0, 1, 0, 0, 0, 0}, func(Frame) {}) == nil {
		t.Error("a frame of 16 MiB is taken")
	}
}
