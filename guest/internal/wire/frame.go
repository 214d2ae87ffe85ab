// Package wire holds what both ends of the channel agree on: frames, their
// payloads and the JSON nouns of protocol/README.md. It takes bytes and gives
// values (and back), and does nothing else.
package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Type is the first byte of a frame.
type Type byte

// Frame types (protocol section 4).
const (
	Start    Type = 0x00
	Stdin    Type = 0x01
	StdinEOF Type = 0x02
	Resize   Type = 0x03
	Signal   Type = 0x04
	Ack      Type = 0x05
	Attach   Type = 0x06
	Detach   Type = 0x07
	Attached Type = 0x10
	Stdout   Type = 0x11
	Stderr   Type = 0x12
	StdinAck Type = 0x13
	Gap      Type = 0x14
	ExitT    Type = 0x15
	Fail     Type = 0x16
	OutEOF   Type = 0x17
)

// Limits of frames, in bytes of payload.
const (
	MaxFrame = 256 << 10
	MaxStart = 8 << 20
	// HeaderLen is the length of type and length.
	HeaderLen = 5
	// OffsetLen is the length of the offset before STDIN, STDOUT and STDERR bytes.
	OffsetLen = 8
)

// Frame is one decoded frame. Which fields count depends on Type.
type Frame struct {
	Type Type
	// Payload is everything behind the header; it is only valid until the next
	// call of the Reader that gave it.
	Payload []byte
	// Offset of STDIN, STDIN_EOF, ACK, STDOUT, STDERR, STDIN_ACK, OUT_EOF; "from" of GAP.
	Offset uint64
	// To is GAP's end.
	To uint64
	// Data of STDIN, STDOUT, STDERR.
	Data []byte
	// Rows and Cols of RESIZE.
	Rows, Cols uint16
	// Signal number and Tree of SIGNAL.
	Signal byte
	Tree   bool
	// Stream of ACK, GAP, OUT_EOF: 1 stdout, 2 stderr, 0 (ACK only) the exit.
	Stream byte
}

// Reader takes frames from a byte stream. It never reads past the frame asked for.
type Reader struct {
	r   io.Reader
	hdr [HeaderLen]byte
	buf []byte
}

// NewReader makes a Reader on r; r should be buffered.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next gives the next frame, io.EOF at a clean end between frames,
// io.ErrUnexpectedEOF within one, and an *ErrorInfo for a frame that makes no sense.
func (r *Reader) Next() (Frame, error) {
	if _, err := io.ReadFull(r.r, r.hdr[:]); err != nil {
		return Frame{}, err
	}
	t, n := Type(r.hdr[0]), binary.BigEndian.Uint32(r.hdr[1:])
	limit := uint32(MaxFrame)
	if t == Start {
		limit = MaxStart
	}
	if n > limit {
		return Frame{}, Errorf(CodeRequest, "A frame of type 0x%02x announces %d bytes, more than %d.", byte(t), n, limit)
	}
	if err := r.fill(int(n)); err != nil {
		return Frame{}, err
	}
	return Decode(t, r.buf[:n])
}

// fill reads n bytes; the buffer grows with what really comes, so that a header
// alone cannot make the agent take 8 MiB.
func (r *Reader) fill(n int) error {
	const step = 64 << 10
	for have := 0; have < n; {
		want := min(n, max(have*2, step))
		if cap(r.buf) < want {
			grown := make([]byte, want)
			copy(grown, r.buf[:have])
			r.buf = grown
		}
		r.buf = r.buf[:cap(r.buf)]
		got, err := io.ReadFull(r.r, r.buf[have:want])
		have += got
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Release gives a large buffer back after START, which alone may need one.
func (r *Reader) Release() {
	if cap(r.buf) > MaxFrame {
		r.buf = nil
	}
}

// Decode checks a payload and takes it apart. Unknown types are given as they are.
func Decode(t Type, p []byte) (Frame, error) {
	f := Frame{Type: t, Payload: p}
	need := func(n int, exact bool) error {
		if len(p) < n || exact && len(p) != n {
			return Errorf(CodeRequest, "A frame of type 0x%02x has a payload of %d bytes instead of %d.", byte(t), len(p), n)
		}
		return nil
	}
	var err error
	switch t {
	case Stdin, Stdout, Stderr:
		if err = need(OffsetLen, false); err == nil {
			f.Offset, f.Data = binary.BigEndian.Uint64(p), p[OffsetLen:]
		}
	case StdinEOF, StdinAck:
		if err = need(8, true); err == nil {
			f.Offset = binary.BigEndian.Uint64(p)
		}
	case Resize:
		if err = need(4, true); err == nil {
			f.Rows, f.Cols = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
		}
	case Signal:
		if err = need(2, true); err == nil {
			f.Signal, f.Tree = p[0], p[1] != 0
		}
	case Ack, OutEOF:
		if err = need(9, true); err == nil {
			f.Stream, f.Offset = p[0], binary.BigEndian.Uint64(p[1:])
			if f.Stream > 2 || t == OutEOF && f.Stream == 0 {
				err = Errorf(CodeRequest, "A frame of type 0x%02x names output %d.", byte(t), f.Stream)
			}
		}
	case Gap:
		if err = need(17, true); err == nil {
			f.Stream, f.Offset, f.To = p[0], binary.BigEndian.Uint64(p[1:]), binary.BigEndian.Uint64(p[9:])
		}
	case Detach:
		err = need(0, true)
	}
	return f, err
}

// AppendHeader adds type and length to b.
func AppendHeader(b []byte, t Type, n int) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(t)), uint32(n))
}

// AppendRaw adds a frame with the given payload (JSON frames, for example).
func AppendRaw(b []byte, t Type, payload []byte) []byte {
	return append(AppendHeader(b, t, len(payload)), payload...)
}

// AppendData adds STDIN, STDOUT or STDERR.
func AppendData(b []byte, t Type, offset uint64, data []byte) []byte {
	b = AppendHeader(b, t, OffsetLen+len(data))
	return append(binary.BigEndian.AppendUint64(b, offset), data...)
}

// AppendOffset adds STDIN_EOF or STDIN_ACK.
func AppendOffset(b []byte, t Type, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(AppendHeader(b, t, 8), offset)
}

// AppendStreamOffset adds ACK or OUT_EOF.
func AppendStreamOffset(b []byte, t Type, stream byte, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(append(AppendHeader(b, t, 9), stream), offset)
}

// AppendGap adds GAP.
func AppendGap(b []byte, stream byte, from, to uint64) []byte {
	b = append(AppendHeader(b, Gap, 17), stream)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, from), to)
}

// Encode gives the bytes of a frame as Decode describes it.
func Encode(f Frame) []byte {
	switch f.Type {
	case Stdin, Stdout, Stderr:
		return AppendData(nil, f.Type, f.Offset, f.Data)
	case StdinEOF, StdinAck:
		return AppendOffset(nil, f.Type, f.Offset)
	case Resize:
		b := binary.BigEndian.AppendUint16(AppendHeader(nil, f.Type, 4), f.Rows)
		return binary.BigEndian.AppendUint16(b, f.Cols)
	case Signal:
		tree := byte(0)
		if f.Tree {
			tree = 1
		}
		return append(AppendHeader(nil, f.Type, 2), f.Signal, tree)
	case Ack, OutEOF:
		return AppendStreamOffset(nil, f.Type, f.Stream, f.Offset)
	case Gap:
		return AppendGap(nil, f.Stream, f.Offset, f.To)
	default:
		return AppendRaw(nil, f.Type, f.Payload)
	}
}

// String names a type for messages.
func (t Type) String() string { return fmt.Sprintf("frame 0x%02x", byte(t)) }
