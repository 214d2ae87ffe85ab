package ring

import (
	"bytes"
	"math/rand"
	"testing"
)

// TestModel compares the ring with a plain slice over random operations.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 200 {
		r := New(1 + rnd.Intn(400_000))
		var all []byte
		start := 0
		for range 100 {
			switch rnd.Intn(4) {
			case 0:
				p := make([]byte, rnd.Intn(1+rnd.Intn(90_000)))
				rnd.Read(p)
				n := r.Append(p)
				if want := min(len(p), r.Limit()-(len(all)-start)); n != want {
					t.Fatalf("Append took %d, want %d", n, want)
				}
				all = append(all, p[:n]...)
			case 1:
				start += rnd.Intn(len(all) - start + 1)
				r.DiscardTo(uint64(start))
			case 2:
				start = len(all)
				r.DiscardTo(uint64(start))
			case 3:
				off := start + rnd.Intn(len(all)-start+1)
				dst := make([]byte, rnd.Intn(90_000))
				n := r.ReadAt(dst, uint64(off))
				if want := all[off:min(len(all), off+len(dst))]; !bytes.Equal(dst[:n], want) {
					t.Fatalf("ReadAt(%d) differs", off)
				}
			}
			if r.Start() != uint64(start) || r.End() != uint64(len(all)) {
				t.Fatalf("range %d-%d, want %d-%d", r.Start(), r.End(), start, len(all))
			}
		}
	}
}

// TestShared: memory that another ring has given back shows nothing of what it held.
func TestShared(t *testing.T) {
	old := New(1 << 20)
	old.Append(bytes.Repeat([]byte{7}, 200_000))
	old.Free()
	r := New(1 << 20)
	r.Append(make([]byte, 5000))
	dst := make([]byte, 200_000)
	if n := r.ReadAt(dst, 0); n != 5000 || bytes.IndexByte(dst, 7) >= 0 {
		t.Fatalf("%d bytes of 5000, or another ring's", n)
	}
}
