package fileserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// workers bounds the requests that are carried out at a time.
const workers = 32

// slow are the requests that may wait for a disk: others do not wait for them.
var slow = map[uint32]bool{
	fuse.OpRead: true, fuse.OpWrite: true, fuse.OpFsync: true, fuse.OpFsyncdir: true, fuse.OpFallocate: true,
	fuse.OpCopyFileRange: true,
}

// complain says on the log what somebody should know.
func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vmsan-fileserver: "+format+"\n", args...)
}

// Serve serves shares on a connection until it ends, which is the VM's end. state is the path of
// the file in which it keeps what it knows of them when the agent asks for that, and from which
// it goes on if the agent does.
func Serve(c *sharewire.Conn, options []Options, state string) error {
	before, err := begin(c, state, len(options))
	if err != nil {
		return err
	}
	shares := make([]*Share, len(options))
	for i, o := range options {
		send := func(kind byte, payload []byte) error { return c.Write(byte(i), kind, payload) }
		share, err := Open(byte(i), o, send)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Source, err)
		}
		defer share.Close()
		shares[i] = share
		if before == nil {
			continue
		}
		share.resumed = true
		if err := share.resume(&before.Shares[i]); err != nil {
			// The guest goes on with it: what it knows is stale.
			complain("%s: what was known of it makes no sense: %v", o.Source, err)
		}
	}
	var busy sync.WaitGroup
	defer busy.Wait()
	slots := make(chan struct{}, workers)
	buffers := sync.Pool{New: func() any { b := make([]byte, sharewire.MaxFrame); return &b }}
	for {
		room := buffers.Get().(*[]byte)
		f, err := c.Read(func(size int) []byte { return (*room)[:size] })
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.Kind == sharewire.Hold && len(f.Payload) >= 8 {
			if err := hold(c, state, f.Payload, shares); err != nil {
				return err
			}
			buffers.Put(room)
			continue
		}
		if int(f.Share) >= len(shares) {
			return fmt.Errorf("the VM speaks of share %d, there are %d", f.Share, len(shares))
		}
		s := shares[f.Share]
		if f.Kind != sharewire.Message {
			s.control(f)
			buffers.Put(room)
			continue
		}
		r, ok := fuse.ParseRequest(f.Payload)
		if !ok {
			return fmt.Errorf("the VM sends what is no request (%d bytes)", len(f.Payload))
		}
		work := func() {
			out := buffers.Get().(*[]byte)
			s.serve(c, &r, (*out)[:0])
			buffers.Put(out)
			buffers.Put(room)
		}
		if !slow[r.Opcode] {
			work() // done sooner than another thread has been woken
			continue
		}
		slots <- struct{}{}
		busy.Add(1)
		go func() {
			defer busy.Done()
			defer func() { <-slots }()
			work()
		}()
	}
}

// begin tells the agent what this file server knows from before, and gives that if the agent
// goes on with it.
func begin(c *sharewire.Conn, state string, shares int) (*kept, error) {
	before := readKept(state)
	if before != nil && len(before.Shares) != shares {
		before = nil
	}
	number := make([]byte, 8)
	if before != nil {
		binary.LittleEndian.PutUint64(number, before.Number)
	}
	if err := c.Write(0, sharewire.Begin, number); err != nil || before == nil {
		return nil, err
	}
	f, err := c.Read(func(size int) []byte { return make([]byte, size) })
	if err != nil {
		return nil, err
	}
	if f.Kind != sharewire.Begin || len(f.Payload) < 1 {
		return nil, errors.New("the VM does not say whether it goes on")
	}
	if f.Payload[0] != 1 {
		return nil, nil
	}
	return before, nil
}

// hold keeps what is known. Nothing is under way: the agent has seen all replies.
func hold(c *sharewire.Conn, state string, number []byte, shares []*Share) error {
	ok := byte(1)
	if err := keep(state, binary.LittleEndian.Uint64(number), shares); err != nil {
		complain("%s: %v", state, err)
		ok = 0
	}
	return c.Write(0, sharewire.Hold, []byte{ok})
}

// serve carries out one request and sends its reply, made in b.
func (s *Share) serve(c *sharewire.Conn, r *fuse.Request, b []byte) {
	const room = sharewire.HeaderLen + fuse.OutHeaderLen
	reply, err, quiet := s.answer(r, b[:room])
	if quiet || r.Unique == fuse.NoReply {
		return
	}
	errno := 0
	if err != nil {
		var e syscall.Errno
		if !errors.As(err, &e) {
			e = syscall.EIO
		}
		errno = int(e)
		reply = b[:room]
	}
	fuse.FinishReply(reply[sharewire.HeaderLen:], errno, r.Unique)
	sharewire.PutHeader(s.index, sharewire.Message, reply)
	if errno == 0 && changesDirectory[r.Opcode] {
		reply = append(s.ahead(r.Node), reply...)
	}
	// An error here is the end of the connection, which its reader sees.
	_ = c.WriteFrames(reply)
}

// changesDirectory are the requests behind which the guest's kernel asks for their directory's attributes.
var changesDirectory = map[uint32]bool{
	fuse.OpCreate: true, fuse.OpMknod: true, fuse.OpMkdir: true, fuse.OpSymlink: true, fuse.OpLink: true,
	fuse.OpUnlink: true, fuse.OpRmdir: true, fuse.OpRename: true, fuse.OpRename2: true,
}

// ahead is a frame with what the kernel will ask of a directory; empty when that cannot be told.
func (s *Share) ahead(node uint64) []byte {
	n, err := s.nodes.get(node)
	if err != nil {
		return nil
	}
	defer s.nodes.put(n)
	const room = sharewire.HeaderLen
	b := binary.LittleEndian.AppendUint64(make([]byte, room, room+8+fuse.AttrOutLen+fuse.OutHeaderLen+fuse.EntryLen), node)
	b, err = s.statNode(n, b)
	if err != nil {
		return nil
	}
	sharewire.PutHeader(s.index, sharewire.DirAttributes, b)
	return b
}

// control takes what the agent says besides requests.
func (s *Share) control(f sharewire.Frame) {
	switch {
	case f.Kind == sharewire.Hello && len(f.Payload) >= 12:
		le := binary.LittleEndian
		s.owner.Store(&owner{le.Uint32(f.Payload[4:]), le.Uint32(f.Payload[8:])})
		s.raiser.Store(le.Uint32(f.Payload))
		if s.resumed {
			s.resumed = false
			go s.watcher.forgetAll() // the host may have changed anything since
		}
	case f.Kind == sharewire.Watchers:
		select {
		case s.watcher.asked <- slices.Clone(f.Payload):
		default: // nobody waits for it any more
		}
	case f.Kind == sharewire.Done && len(f.Payload) >= 8:
		select {
		case s.watcher.done <- binary.LittleEndian.Uint64(f.Payload):
		default: // as above
		}
	}
}
