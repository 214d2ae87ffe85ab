package fileserver

import (
	"encoding/binary"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// A change on the host reaches watchers in the guest in two steps: the guest's kernel is
// told to forget what it knew (which raises no event), then the agent makes the kernel call
// that raises one: it creates what is there, removes what is gone, sets the time that is
// set. The requests that come of it are answered here as if they had been carried out. They
// are known by the agent's thread; a guest that pretends to be it gains a reply and nothing
// else.

// raising is an event that the agent is raising.
type raising struct {
	sharewire.Event
	dir *node
	// old is the object of a removal.
	old *node
	// ino is the object's inode number in the guest, 0 if the guest does not know it.
	ino uint64
}

// fromRaiser tells whether a request comes of an event's call, in time or late: a VM that
// was paused in between makes it when nobody waits for it any more.
func (s *Share) fromRaiser(r *fuse.Request) bool {
	raiser := s.raiser.Load()
	return raiser != 0 && r.PID == raiser
}

// answerRaised answers a request that comes of an event; done is false for all others.
func (s *Share) answerRaised(n *node, r *fuse.Request, b []byte) (reply []byte, err error, done bool) {
	if !s.fromRaiser(r) {
		return b, nil, false
	}
	ev := s.raised.Load()
	if ev == nil {
		return b, nil, false
	}
	in := fuse.NewReader(r.Body)
	here := func() bool { return n == ev.dir && in.Text() == ev.Name }
	switch r.Opcode {
	case fuse.OpLookup:
		switch {
		case !here():
		case ev.What == sharewire.Created:
			return b, syscall.ENOENT, true
		case ev.What == sharewire.Deleted:
			return s.showOld(ev, b), nil, true
		}
	case fuse.OpMknod, fuse.OpMkdir, fuse.OpSymlink:
		switch r.Opcode {
		case fuse.OpMknod:
			in.Bytes(16)
		case fuse.OpMkdir:
			in.Bytes(8)
		}
		if ev.What == sharewire.Created && here() {
			reply, err := s.showNew(ev, b)
			return reply, err, true
		}
	case fuse.OpUnlink, fuse.OpRmdir:
		if ev.What == sharewire.Deleted && here() {
			return b, nil, true
		}
	case fuse.OpSetattr:
		if ev.What == sharewire.Modified || ev.What == sharewire.Attributes {
			reply, err := s.statNode(n, b)
			return reply, err, true
		}
	case fuse.OpOpen:
		if ev.What == sharewire.Closed {
			id, err := s.keepHandle(&handle{fd: -1, node: n, noop: true})
			return fuse.AppendOpen(b, id, fuse.OpenKeepCache), err, true
		}
	}
	return b, nil, false
}

// showOld shows an object that is gone under its old name, to be removed.
func (s *Share) showOld(ev *raising, b []byte) []byte {
	s.nodes.mu.Lock()
	old := ev.old
	if old != nil {
		old.lookups++
	}
	s.nodes.mu.Unlock()
	if old == nil {
		old = s.nodes.phantomOf(uint32(ev.Type) << 12)
	}
	e := fuse.Entry{Node: old.id, Attr: fuse.Attr{Ino: old.id, Mode: old.kind | 0o700, Nlink: 1}}
	var st syscall.Stat_t
	if fd, release, err := s.nodes.descriptor(old); err == nil {
		if syscall.Fstat(fd, &st) == nil {
			e.Attr = s.attr(&st)
			e.Attr.Nlink = max(e.Attr.Nlink, 1) // the kernel takes one away
		}
		release()
	}
	return e.Append(b)
}

// showNew shows an object that is there as the one that the agent has just made.
func (s *Share) showNew(ev *raising, b []byte) ([]byte, error) {
	dir, err := s.inDir(ev.dir, ev.Name)
	if err != nil {
		return b, err
	}
	st, err := s.find(dir, ev.Name)
	if err != nil {
		return b, err
	}
	if st.Mode&syscall.S_IFMT != uint32(ev.Type)<<12 {
		return b, syscall.ENOENT // something else by now; it has an event of its own
	}
	e := s.entry(ev.dir, ev.Name, &st)
	return e.Append(b), nil
}

// enqueue adds an event to be raised. The same one again, not yet raised, is one.
func (w *watcher) enqueue(r *raising) {
	w.pendMu.Lock()
	defer w.pendMu.Unlock()
	if len(w.pending) >= maxPending {
		return
	}
	if last := len(w.pending) - 1; last >= 0 {
		p := w.pending[last]
		if p.dir == r.dir && p.Name == r.Name && p.What == r.What {
			return
		}
	}
	w.share.nodes.mu.Lock()
	for _, n := range []*node{r.dir, r.old} {
		if n != nil {
			n.refs++
		}
	}
	w.share.nodes.mu.Unlock()
	w.nextID++
	r.ID = w.nextID
	if r.old != nil {
		r.ino = w.share.inode(r.old.key)
	}
	w.pending = append(w.pending, r)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// raise has the agent raise what somebody in the guest watches, one event after the other.
func (w *watcher) raise() {
	for {
		select {
		case <-w.wake:
		case <-w.over:
			return
		}
		time.Sleep(batch)
		w.pendMu.Lock()
		pending := w.pending
		w.pending = nil
		w.pendMu.Unlock()
		if len(pending) == 0 {
			continue
		}
		watched := w.watchers()
		for _, r := range pending {
			// The kernel calls a root 1 until it has looked at it.
			root := r.dir.id == fuse.RootID && watched(fuse.RootID)
			if root || watched(w.share.inode(r.dir.key)) || r.ino != 0 && watched(r.ino) {
				w.raiseOne(r)
			}
			w.share.nodes.put(r.dir)
			if r.old != nil {
				w.share.nodes.put(r.old)
			}
		}
	}
}

// watchers asks the agent which inodes are watched, so that a tree that is built or removed on
// the host costs nothing in guests that watch none of it.
func (w *watcher) watchers() func(ino uint64) bool {
	s := w.share
	none := func(uint64) bool { return false }
	if s.raiser.Load() == 0 {
		return none
	}
	w.nextAsk++
	question := binary.LittleEndian.AppendUint64(nil, w.nextAsk)
	if s.send(sharewire.Watchers, question) != nil {
		return none
	}
	limit := time.NewTimer(raiseWait)
	defer limit.Stop()
	for {
		select {
		case b := <-w.asked:
			if len(b) < 9 || binary.LittleEndian.Uint64(b) != w.nextAsk {
				continue
			}
			if b[8] == 1 {
				return func(uint64) bool { return true }
			}
			all := map[uint64]bool{}
			for b = b[9:]; len(b) >= 8; b = b[8:] {
				all[binary.LittleEndian.Uint64(b)] = true
			}
			return func(ino uint64) bool { return all[ino] }
		case <-limit.C:
			return none
		case <-w.over:
			return none
		}
	}
}

func (w *watcher) raiseOne(r *raising) {
	s := w.share
	if s.raiser.Load() == 0 {
		return
	}
	s.raised.Store(r)
	defer s.raised.Store(nil)
	if s.send(sharewire.Raise, r.Append(nil)) != nil {
		return
	}
	limit := time.NewTimer(raiseWait)
	defer limit.Stop()
	for {
		select {
		case id := <-w.done:
			if id == r.ID {
				return
			}
		case <-limit.C:
			return
		case <-w.over:
			return
		}
	}
}
