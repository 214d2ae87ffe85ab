// Package ring holds a byte queue addressed by the offsets of the stream that
// went through it. Memory follows what is held, up to a limit. Not safe for
// concurrent use: its owner has the lock.
package ring

const minCap = 4 << 10

// keepCap is the capacity that an emptied ring may keep: giving it back and
// clearing new memory for each burst costs more than the copying.
const keepCap = 256 << 10

// Ring holds the bytes from Start to End of a stream.
type Ring struct {
	buf        []byte // length is a power of two, or 0
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
	if n == 0 {
		return 0
	}
	r.grow(r.Len() + n)
	at := int(r.end & uint64(len(r.buf)-1))
	if c := copy(r.buf[at:], p[:n]); c < n {
		copy(r.buf, p[c:n])
	}
	r.end += uint64(n)
	return n
}

// ReadAt copies bytes from offset on, which lies in [Start, End], and gives their number.
func (r *Ring) ReadAt(dst []byte, offset uint64) int {
	n := min(len(dst), int(r.end-offset))
	if n == 0 {
		return 0
	}
	at := int(offset & uint64(len(r.buf)-1))
	if c := copy(dst[:n], r.buf[at:]); c < n {
		copy(dst[c:n], r.buf)
	}
	return n
}

// DiscardTo drops what lies before offset; offset is clamped to [Start, End].
func (r *Ring) DiscardTo(offset uint64) {
	if offset <= r.start {
		return
	}
	r.start = min(offset, r.end)
	if r.start == r.end && len(r.buf) > keepCap {
		r.buf = nil
	}
}

// Free drops everything and the memory; offsets stay.
func (r *Ring) Free() {
	r.start = r.end
	r.buf = nil
}

func (r *Ring) grow(need int) {
	if need <= len(r.buf) {
		return
	}
	size := max(minCap, len(r.buf))
	for size < need {
		size *= 2
	}
	grown := make([]byte, size)
	for off := r.start; off < r.end; {
		at := int(off & uint64(size-1))
		n := r.ReadAt(grown[at:], off)
		off += uint64(n)
	}
	r.buf = grown
}
