// Package sharewire is what the agent and a host's file server say to each other about
// shared directories: frames on one byte stream (protocol section 9), after the same
// RESET as on the agent's channel.
package sharewire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// Port is the number of the vsock port; PortName the name of the virtio-serial port.
const (
	Port     = 1025
	PortName = "vmsan.1"
)

// MaxData is the most content of a file in one message, in bytes; MaxFrame what a frame
// may hold with everything around it.
const (
	MaxData  = 1 << 20
	MaxFrame = MaxData + 8<<10
)

// UserXattr begins the names of the extended attributes that pass, which are the user's own. What else there is
// (capabilities of programs, labels, overlays' marks) is the business of the kernel that it lies under: EOPNOTSUPP.
const UserXattr = "user."

// HeaderLen is the length of a frame's header: length(4) share(1) kind(1) zero(2).
const HeaderLen = 8

// Kinds of frames.
const (
	// Message is one message of the FUSE protocol, a request or its reply.
	Message = 0
	// Notify is a notification of the FUSE protocol, to the agent.
	Notify = 1
	// Raise asks the agent to let watchers in the guest know of a change: see Event.
	Raise = 2
	// Done, from the agent: the Raise with that number(8) is over.
	Done = 3
	// Hello, from the agent, begins a share: the thread(4) that carries out its Raises, and
	// user(4) and group(4) of the guest to whom it belongs.
	Hello = 4
	// Watchers asks, and the agent answers with the number(8) of the question, all(1: 1 when
	// something watches everything) and the inode numbers(8 each) that something watches.
	Watchers = 5
	// Hold, from the agent, asks the host to keep all that it knows of nodes and handles, under a
	// number(8): nothing is under way, and nothing will be asked until the VM goes on. The
	// answer is kept(1). Both are of no share.
	Hold = 6
	// Begin is the host's first frame: the number(8) under which it knows of nodes and handles, 0 for
	// none. The answer to another is goesOn(1): 0 when the agent begins anew all the same.
	Begin = 7
	// DirAttributes, to the agent ahead of the reply to what has changed a directory: its node(8) and what a
	// GETATTR of it would be answered, which the kernel asks for next.
	DirAttributes = 8
)

// Frame is one frame.
type Frame struct {
	Share byte
	Kind  byte
	// Payload may be kept by whoever takes the frame.
	Payload []byte
}

// Conn reads and writes frames. Reading is for one goroutine, writing for any.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
}

// NewConn makes a Conn on c.
func NewConn(c net.Conn) *Conn {
	return &Conn{conn: c, in: bufio.NewReaderSize(c, 64<<10)}
}

// Line reads up to a line's end.
func (c *Conn) Line() (string, error) { return c.in.ReadString('\n') }

// Raw writes bytes that are no frame.
func (c *Conn) Raw(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

// Skip reads until the bytes of mark have come.
func (c *Conn) Skip(mark []byte) error {
	last := make([]byte, 0, 2*len(mark))
	for {
		b, err := c.in.ReadByte()
		if err != nil {
			return err
		}
		if len(last) == cap(last) {
			last = append(last[:0], last[len(last)-len(mark)+1:]...)
		}
		last = append(last, b)
		if bytes.HasSuffix(last, mark) {
			return nil
		}
	}
}

// Parser takes frames out of a stream that comes in pieces.
type Parser struct {
	// rest is the beginning of a frame that is not whole.
	rest []byte
}

// Feed gives the frames that p completes to take; their payloads are only valid during the call.
func (x *Parser) Feed(p []byte, take func(Frame)) error {
	for len(p) > 0 {
		if len(x.rest) == 0 {
			// What came whole needs no copy.
			size, err := frameSize(p)
			if err != nil {
				return err
			}
			if size > 0 && size <= len(p) {
				take(frameOf(p[:size]))
				p = p[size:]
				continue
			}
		}
		more := HeaderLen
		if len(x.rest) >= HeaderLen {
			size, err := frameSize(x.rest)
			if err != nil {
				return err
			}
			more = size
		}
		n := min(more-len(x.rest), len(p))
		x.rest = append(x.rest, p[:n]...)
		p = p[n:]
		size, err := frameSize(x.rest)
		if err != nil {
			return err
		}
		if size > 0 && len(x.rest) == size {
			take(frameOf(x.rest))
			x.rest = x.rest[:0]
		}
	}
	return nil
}

// frameSize is the length of the frame that b begins, 0 if its header is not whole.
func frameSize(b []byte) (int, error) {
	if len(b) < HeaderLen {
		return 0, nil
	}
	size := binary.LittleEndian.Uint32(b)
	if size > MaxFrame {
		return 0, fmt.Errorf("a frame of %d bytes", size)
	}
	return HeaderLen + int(size), nil
}

func frameOf(b []byte) Frame { return Frame{Share: b[4], Kind: b[5], Payload: b[HeaderLen:]} }

// Read waits for a frame; buffer gives the memory for its payload.
func (c *Conn) Read(buffer func(size int) []byte) (Frame, error) {
	var head [HeaderLen]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return Frame{}, err
	}
	size, err := frameSize(head[:])
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Share: head[4], Kind: head[5], Payload: buffer(size - HeaderLen)}
	_, err = io.ReadFull(c.in, f.Payload)
	return f, err
}

// PutHeader makes a frame of b, whose payload lies behind HeaderLen bytes of room.
func PutHeader(share, kind byte, b []byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-HeaderLen))
	b[4], b[5], b[6], b[7] = share, kind, 0, 0
}

// WriteRoom writes a frame whose payload lies behind HeaderLen bytes of room in b.
func (c *Conn) WriteRoom(share, kind byte, b []byte) error {
	PutHeader(share, kind, b)
	return c.WriteFrames(b)
}

// WriteFrames writes whole frames.
func (c *Conn) WriteFrames(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.conn.Write(b)
	return err
}

// Write writes a frame.
func (c *Conn) Write(share, kind byte, payload []byte) error {
	return c.WriteRoom(share, kind, append(make([]byte, HeaderLen, HeaderLen+len(payload)), payload...))
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// What has happened on the host, in an Event.
const (
	Modified   = 1
	Attributes = 2
	Closed     = 3 // after writing
	Created    = 4
	Deleted    = 5
)

// Event is a change on the host that watchers in the guest are to see. The agent makes the
// kernel call that raises such an event, and the file server answers the requests that
// come of it, by that thread and for that name, without doing anything.
type Event struct {
	ID uint64
	// What is Modified and so on.
	What byte
	// Type is the object's file type as in a mode, shifted right by 12 bits.
	Type byte
	// Dir is the node of the directory, Name the name in it.
	Dir  uint64
	Name string
}

// Append adds its bytes to b.
func (e *Event) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.ID)
	b = binary.LittleEndian.AppendUint64(b, e.Dir)
	b = append(b, e.What, e.Type)
	return append(b, e.Name...)
}

// ParseEvent reads one; false when it is none.
func ParseEvent(b []byte) (Event, bool) {
	if len(b) < 18 {
		return Event{}, false
	}
	return Event{
		ID: binary.LittleEndian.Uint64(b), Dir: binary.LittleEndian.Uint64(b[8:]),
		What: b[16], Type: b[17], Name: string(b[18:]),
	}, true
}
