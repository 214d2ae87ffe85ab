// Package ring holds a byte queue addressed by the offsets of the stream that
// went through it. Memory follows what is held, up to a limit. Not safe for
// concurrent use: its owner has the lock.
package ring

import (
	"slices"
	"sort"
	"sync"
)

// Sizes of the pieces that bytes are kept in. One that holds little takes little; a busy one takes
// and gives back large ones, which all rings share: memory that grew by doubling was cleared and copied again
// for each burst.
const (
	smallPiece = 4 << 10
	largePiece = 64 << 10
)

var largePieces = sync.Pool{New: func() any { return new([largePiece]byte) }}

// piece is memory for the bytes from offset from on.
type piece struct {
	buf  []byte
	from uint64
	// pooled is where buf came from; nil: made for this ring.
	pooled *[largePiece]byte
}

// Ring holds the bytes from Start to End of a stream.
type Ring struct {
	// pieces follow each other without a gap; all but the last are full.
	pieces     []piece
	start, end uint64
	limit      int
}

// New makes a ring that holds at most limit bytes.
func New(limit int) Ring { return Ring{limit: limit} }

// Start is the offset of the oldest byte held.
func (r *Ring) Start() uint64 { return r.start }

// End is the offset behind the newest byte.
func (r *Ring) End() uint64 { return r.end }

// Len is the number of bytes held.
func (r *Ring) Len() int { return int(r.end - r.start) }

// Limit is the most that it holds.
func (r *Ring) Limit() int { return r.limit }

// Room is how many bytes Append would take.
func (r *Ring) Room() int { return max(0, r.limit-r.Len()) }

// Append adds as much of p as there is room for and gives its length.
func (r *Ring) Append(p []byte) int {
	n := min(len(p), r.Room())
	for p = p[:n]; len(p) > 0; {
		free := r.free()
		if len(free) == 0 {
			r.add(len(p))
			continue
		}
		c := copy(free, p)
		p = p[c:]
		r.end += uint64(c)
	}
	return n
}

// free is the memory behind the newest byte.
func (r *Ring) free() []byte {
	if len(r.pieces) == 0 {
		return nil
	}
	last := &r.pieces[len(r.pieces)-1]
	return last.buf[r.end-last.from:]
}

// add takes another piece, for want bytes to come.
func (r *Ring) add(want int) {
	if len(r.pieces) == 0 && want <= smallPiece {
		r.pieces = append(r.pieces, piece{buf: make([]byte, smallPiece), from: r.end})
		return
	}
	pooled := largePieces.Get().(*[largePiece]byte)
	r.pieces = append(r.pieces, piece{buf: pooled[:], from: r.end, pooled: pooled})
}

// ReadAt copies bytes from offset on, which lies in [Start, End], and gives their number.
func (r *Ring) ReadAt(dst []byte, offset uint64) int {
	n := min(len(dst), int(r.end-offset))
	if n == 0 {
		return 0
	}
	// The piece before the first that begins behind the offset.
	at := sort.Search(len(r.pieces), func(i int) bool { return r.pieces[i].from > offset }) - 1
	for done := 0; done < n; at++ {
		p := &r.pieces[at]
		done += copy(dst[done:n], p.buf[offset+uint64(done)-p.from:])
	}
	return n
}

// DiscardTo drops what lies before offset; offset is clamped to [Start, End].
func (r *Ring) DiscardTo(offset uint64) {
	if offset <= r.start {
		return
	}
	r.start = min(offset, r.end)
	if r.start == r.end {
		r.empty()
		return
	}
	gone := 0
	for r.pieces[gone].from+uint64(len(r.pieces[gone].buf)) <= r.start {
		gone++
	}
	r.drop(0, gone)
}

// empty gives the pieces back, but for a small one: what trickles through needs no new memory each time.
func (r *Ring) empty() {
	keep := 0
	if len(r.pieces) > 0 && r.pieces[0].pooled == nil {
		r.pieces[0].from = r.end
		keep = 1
	}
	r.drop(keep, len(r.pieces))
}

// drop gives pieces back.
func (r *Ring) drop(from, to int) {
	for i := range r.pieces[from:to] {
		if p := r.pieces[from+i].pooled; p != nil {
			largePieces.Put(p)
		}
	}
	r.pieces = slices.Delete(r.pieces, from, to)
}

// Free drops everything and the memory; offsets stay.
func (r *Ring) Free() {
	r.start = r.end
	r.drop(0, len(r.pieces))
	r.pieces = nil
}
