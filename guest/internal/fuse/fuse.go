// Package fuse is the part of the kernel's FUSE protocol (linux/fuse.h, version 7)
// that shared directories use: numbers, and messages to and from bytes. It does no
// input or output. The Go packages for FUSE that are kept up all speak to /dev/fuse of
// their own machine; here the kernel is a guest's, at the far end of a byte stream.
package fuse

import (
	"bytes"
	"encoding/binary"
)

// le is the byte order of both of our architectures; a guest has its host's.
var le = binary.LittleEndian

// Version of the protocol that is spoken.
const (
	Major = 7
	Minor = 38
)

// RootID is the node of a mount's root.
const RootID = 1

// Opcodes.
const (
	OpLookup        = 1
	OpForget        = 2
	OpGetattr       = 3
	OpSetattr       = 4
	OpReadlink      = 5
	OpSymlink       = 6
	OpMknod         = 8
	OpMkdir         = 9
	OpUnlink        = 10
	OpRmdir         = 11
	OpRename        = 12
	OpLink          = 13
	OpOpen          = 14
	OpRead          = 15
	OpWrite         = 16
	OpStatfs        = 17
	OpRelease       = 18
	OpFsync         = 20
	OpSetxattr      = 21
	OpGetxattr      = 22
	OpListxattr     = 23
	OpRemovexattr   = 24
	OpInit          = 26
	OpOpendir       = 27
	OpReaddir       = 28
	OpReleasedir    = 29
	OpFsyncdir      = 30
	OpSetlk         = 32
	OpSetlkw        = 33 // waits until the lock can be had
	OpCreate        = 35
	OpInterrupt     = 36
	OpDestroy       = 38
	OpBatchForget   = 42
	OpFallocate     = 43
	OpReaddirplus   = 44
	OpRename2       = 45
	OpLseek         = 46
	OpCopyFileRange = 47
)

// Capabilities of INIT.
const (
	CapAsyncRead       = 1 << 0
	CapBigWrites       = 1 << 5
	CapFlockLocks      = 1 << 10
	CapAutoInvalData   = 1 << 12
	CapDoReaddirplus   = 1 << 13
	CapAsyncDio        = 1 << 15
	CapParallelDirops  = 1 << 18
	CapMaxPages        = 1 << 22
	CapCacheSymlinks   = 1 << 23
	CapHandleKillpriv2 = 1 << 28
)

// What SETATTR sets.
const (
	AttrMode      = 1 << 0
	AttrUID       = 1 << 1
	AttrGID       = 1 << 2
	AttrSize      = 1 << 3
	AttrAtime     = 1 << 4
	AttrMtime     = 1 << 5
	AttrFh        = 1 << 6
	AttrAtimeNow  = 1 << 7
	AttrMtimeNow  = 1 << 8
	AttrKillSugid = 1 << 11
)

// Smaller flags.
const (
	GetattrFh      = 1 // GETATTR names a handle
	OpenKillSugid  = 1 // OPEN clears set-user-ID and the like
	WriteKillSugid = 4 // likewise WRITE
	FsyncDataOnly  = 1
	LockFlock      = 1 // SETLK is flock(2)
	OpenKeepCache  = 2 // the reply to OPEN: pages of an earlier opening are good
)

// Notifications.
const (
	NotifyInvalInode = 2
	NotifyInvalEntry = 3
)

// Lengths of messages' fixed parts, in bytes.
const (
	InHeaderLen  = 40
	OutHeaderLen = 16
	attrLen      = 88
	EntryLen     = 40 + attrLen
	AttrOutLen   = 16 + attrLen
	direntLen    = 24
)

// Request is one message of the kernel.
type Request struct {
	Opcode uint32
	Unique uint64
	Node   uint64
	UID    uint32
	GID    uint32
	PID    uint32
	// Body is what follows the header.
	Body []byte
}

// ParseRequest reads a message; false when it is none.
func ParseRequest(b []byte) (Request, bool) {
	if len(b) < InHeaderLen || uint64(le.Uint32(b)) != uint64(len(b)) {
		return Request{}, false
	}
	return Request{
		Opcode: le.Uint32(b[4:]), Unique: le.Uint64(b[8:]), Node: le.Uint64(b[16:]),
		UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]), PID: le.Uint32(b[32:]), Body: b[InHeaderLen:],
	}, true
}

// Answered tells whether an answer to a message is to come.
func Answered(b []byte) bool {
	switch OpcodeOf(b) {
	case 0, OpForget, OpBatchForget, OpInterrupt:
		return false
	}
	return UniqueOf(b) != NoReply
}

// uniqueAt is where a message has its number; NoReply instead of that means that nobody wants an answer.
const (
	uniqueAt = 8
	NoReply  = 0
)

// OpcodeOf gives what a message asks for, 0 if it is none; NodeOf of which node.
func OpcodeOf(b []byte) uint32 {
	if len(b) < InHeaderLen {
		return 0
	}
	return le.Uint32(b[4:])
}

// NodeOf gives the node that a whole message is about.
func NodeOf(b []byte) uint64 { return le.Uint64(b[16:]) }

// UniqueOf gives a whole message's number.
func UniqueOf(b []byte) uint64 { return le.Uint64(b[uniqueAt:]) }

// AsksForAttr tells whether a message asks for a node's attributes, and not for those of an open file.
func AsksForAttr(b []byte) bool {
	return OpcodeOf(b) == OpGetattr && len(b) >= InHeaderLen+4 && le.Uint32(b[InHeaderLen:])&GetattrFh == 0
}

// Forgets gives the node that a notification is about; false when it is about none.
func Forgets(b []byte) (node uint64, ok bool) {
	if len(b) < OutHeaderLen+8 {
		return 0, false
	}
	return le.Uint64(b[OutHeaderLen:]), true
}

// Closing gives the number of a message by which a file or directory that was closed is given back. Nobody in the
// guest waits for that, but the kernel wants an answer. Whoever gives it one puts NoReply for the number.
func Closing(b []byte) (unique uint64, closing bool) {
	op := OpcodeOf(b)
	if op != OpRelease && op != OpReleasedir {
		return NoReply, false
	}
	return UniqueOf(b), true
}

// Interrupts gives the number of the message that an INTERRUPT is about; false when it is none.
func Interrupts(b []byte) (unique uint64, ok bool) {
	if OpcodeOf(b) != OpInterrupt || len(b) < InHeaderLen+8 {
		return NoReply, false
	}
	return le.Uint64(b[InHeaderLen:]), true
}

// Failed gives the number of the message that a reply is to, and with what error, 0 for none.
func Failed(reply []byte) (unique uint64, errno int) {
	if len(reply) < OutHeaderLen {
		return NoReply, 0
	}
	return le.Uint64(reply[8:]), -int(int32(le.Uint32(reply[4:])))
}

// CanWait tells whether nobody notices when a message is carried out a little later: nodes that are forgotten, and
// what was closed without having been open for writing, which others on the host may be about to execute (ETXTBSY).
func CanWait(b []byte) bool {
	switch OpcodeOf(b) {
	case OpForget, OpBatchForget, OpReleasedir:
		return true
	case OpRelease:
		in := NewReader(b[InHeaderLen:])
		in.U64()
		return in.U32()&oAccmode == 0 && !in.Bad()
	}
	return false
}

// oAccmode are open's flags of which none is set in those that only read.
const oAccmode = 3

// AsksForXattr gives the number of a message that asks for an extended attribute whose name does not begin so.
func AsksForXattr(b []byte, butFor string) (unique uint64, asks bool) {
	const nameAt = InHeaderLen + 8 // size(4) padding(4)
	if len(b) < nameAt || OpcodeOf(b) != OpGetxattr {
		return NoReply, false
	}
	return UniqueOf(b), !bytes.HasPrefix(b[nameAt:], []byte(butFor))
}

// WantNoReply puts NoReply for a message's number.
func WantNoReply(b []byte) { le.PutUint64(b[uniqueAt:], NoReply) }

// Reader takes a body apart. Past its end everything is zero and Bad is true.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader reads b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

func (r *Reader) take(n int) []byte {
	if len(r.b) < n {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

// U32 takes four bytes.
func (r *Reader) U32() uint32 { return le.Uint32(r.take(4)) }

// U64 takes eight bytes.
func (r *Reader) U64() uint64 { return le.Uint64(r.take(8)) }

// Text takes a string and the NUL behind it.
func (r *Reader) Text() string {
	for i, c := range r.b {
		if c == 0 {
			s := string(r.b[:i])
			r.b = r.b[i+1:]
			return s
		}
	}
	r.bad = true
	return ""
}

// Bytes takes n bytes; they are valid as long as the message.
func (r *Reader) Bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// Bad tells whether more was taken than there was.
func (r *Reader) Bad() bool { return r.bad }

// Attr describes an object to the kernel.
type Attr struct {
	Ino, Size, Blocks   uint64
	Atime, Mtime, Ctime Time
	Mode, Nlink         uint32
	UID, GID            uint32
	Rdev, Blksize       uint32
}

// Time is seconds and nanoseconds since the epoch.
type Time struct {
	Sec  int64
	Nsec uint32
}

func (a *Attr) append(b []byte) []byte {
	for _, v := range []uint64{a.Ino, a.Size, a.Blocks, uint64(a.Atime.Sec), uint64(a.Mtime.Sec), uint64(a.Ctime.Sec)} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range []uint32{
		a.Atime.Nsec, a.Mtime.Nsec, a.Ctime.Nsec, a.Mode, a.Nlink, a.UID, a.GID, a.Rdev, a.Blksize, 0,
	} {
		b = le.AppendUint32(b, v)
	}
	return b
}

// Entry is the reply to LOOKUP and to what makes a name. Node 0: there is no such name,
// which may be believed for EntryValid seconds.
type Entry struct {
	Node       uint64
	EntryValid uint64
	AttrValid  uint64
	Attr       Attr
}

// Append adds its bytes to b.
func (e *Entry) Append(b []byte) []byte {
	for _, v := range []uint64{e.Node, 0, e.EntryValid, e.AttrValid, 0} {
		b = le.AppendUint64(b, v)
	}
	return e.Attr.append(b)
}

// AppendAttr adds the reply to GETATTR and SETATTR; valid in seconds.
func AppendAttr(b []byte, valid uint64, a *Attr) []byte {
	b = le.AppendUint64(le.AppendUint64(b, valid), 0)
	return a.append(b)
}

// AppendOpen adds the reply to OPEN.
func AppendOpen(b []byte, handle uint64, flags uint32) []byte {
	b = le.AppendUint64(b, handle)
	return le.AppendUint32(le.AppendUint32(b, flags), 0)
}

// DirentSize is what AppendDirent adds for a name of that length.
func DirentSize(name int) int { return (direntLen + name + 7) &^ 7 }

// AppendDirent adds an entry of READDIR; off is where the next one is read from.
func AppendDirent(b []byte, ino, off uint64, kind uint32, name string) []byte {
	b = le.AppendUint64(le.AppendUint64(b, ino), off)
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(name))), kind)
	b = append(b, name...)
	return append(b, make([]byte, DirentSize(len(name))-direntLen-len(name))...)
}

// InitReply is the body of INIT's reply.
type InitReply struct {
	Minor, MaxReadahead, Flags, MaxWrite uint32
	MaxBackground                        uint16
	MaxPages                             uint16
}

// Append adds its bytes to b.
func (r *InitReply) Append(b []byte) []byte {
	for _, v := range []uint32{Major, r.Minor, r.MaxReadahead, r.Flags} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint16(le.AppendUint16(b, r.MaxBackground), r.MaxBackground*3/4)
	b = le.AppendUint32(le.AppendUint32(b, r.MaxWrite), 1) // times to the nanosecond
	b = le.AppendUint16(b, r.MaxPages)
	return append(b, make([]byte, 64-16-12-2)...)
}

// InvalInode is the message that makes the kernel forget attributes of a node and, if
// data is true, the pages of its content.
func InvalInode(node uint64, data bool) []byte {
	from := ^uint64(0) // a negative offset: attributes alone
	if data {
		from = 0
	}
	b := header(make([]byte, 0, OutHeaderLen+24), OutHeaderLen+24, NotifyInvalInode, 0)
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(b, node), from), 0)
}

// InvalEntry is the message that makes the kernel forget a name.
func InvalEntry(parent uint64, name string) []byte {
	size := OutHeaderLen + 16 + len(name) + 1
	b := header(make([]byte, 0, size), size, NotifyInvalEntry, 0)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint64(b, parent), uint32(len(name))), 0)
	return append(append(b, name...), 0)
}

func header(b []byte, size int, code int32, unique uint64) []byte {
	b = le.AppendUint32(le.AppendUint32(b, uint32(size)), uint32(code))
	return le.AppendUint64(b, unique)
}

// EmptyReply is the message that says no more than that something was done, or why not.
func EmptyReply(unique uint64, errno int) []byte {
	return header(make([]byte, 0, OutHeaderLen), OutHeaderLen, int32(-errno), unique)
}

// Reply is the message that answers with a body.
func Reply(unique uint64, body []byte) []byte {
	size := OutHeaderLen + len(body)
	return append(header(make([]byte, 0, size), size, 0, unique), body...)
}

// FinishReply fills in the header that begins the reply b.
func FinishReply(b []byte, errno int, unique uint64) {
	header(b[:0], len(b), int32(-errno), unique)
}
