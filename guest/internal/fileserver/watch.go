package fileserver

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

const (
	// gather is how long events are collected, so that what comes in a burst is seen once.
	gather = 5 * time.Millisecond
	// maxPending bounds the changes that wait to be raised in the guest. What comes
	// beyond is noticed there by who looks, but by no watcher.
	maxPending = 20_000
	// batch is how long changes wait for others, before it is asked who watches.
	batch = 50 * time.Millisecond
	// raiseWait is how long the agent may take for one.
	raiseWait    = 10 * time.Second
	inExclUnlink = 0x04000000
)

const watchMask = syscall.IN_ATTRIB | syscall.IN_MODIFY | syscall.IN_CLOSE_WRITE | syscall.IN_CREATE | syscall.IN_DELETE |
	syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO | syscall.IN_ONLYDIR | inExclUnlink

// watcher follows what the host changes in the directories that the guest uses.
type watcher struct {
	share *Share
	file  *os.File
	fd    int
	mu    sync.Mutex
	dirs  map[int32]*node
	tired bool // no more watches can be had; said once

	pendMu  sync.Mutex
	wake    chan struct{}
	pending []*raising
	done    chan uint64
	asked   chan []byte
	over    chan struct{}
	nextID  uint64
	nextAsk uint64
}

// newWatcher begins; without inotify the guest's kernel believes nothing for long.
func newWatcher(s *Share) *watcher {
	w := &watcher{
		share: s, fd: -1, dirs: map[int32]*node{}, wake: make(chan struct{}, 1), done: make(chan uint64, 16), asked: make(chan []byte, 1), over: make(chan struct{}),
	}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return w
	}
	w.fd, w.file = fd, os.NewFile(uintptr(fd), "inotify")
	s.nodes.onDrop = w.drop
	go w.follow()
	go w.raise()
	return w
}

func (w *watcher) close() {
	close(w.over)
	if w.file != nil {
		_ = w.file.Close() // nothing is written to it
	}
}

// add watches a directory, once.
func (w *watcher) add(n *node, fd int) {
	if w.fd < 0 || n.watch.Load() != 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.watch.Load() != 0 || w.tired {
		return
	}
	wd, err := syscall.InotifyAddWatch(w.fd, ownFd(fd), watchMask)
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			w.tired = true
			complain("no more directories can be watched (fs.inotify.max_user_watches); changes in others reach watchers in the VM not at all")
		}
		return
	}
	w.dirs[int32(wd)] = n
	n.watch.Store(int32(wd))
}

// drop ends a watch.
func (w *watcher) drop(wd int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dirs, wd)
	_, _ = syscall.InotifyRmWatch(w.fd, uint32(wd)) // the directory may be gone, and the watch with it
}

func (w *watcher) dirOf(wd int32) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dirs[wd]
}

// change is one event of inotify.
type change struct {
	wd   int32
	mask uint32
	name string
}

// follow reads events until the share is closed.
func (w *watcher) follow() {
	buf := make([]byte, 256<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		changes := parseChanges(nil, buf[:n])
		time.Sleep(gather)
		w.take(changes)
	}
}

func parseChanges(to []change, b []byte) []change {
	for len(b) >= syscall.SizeofInotifyEvent {
		le := binary.LittleEndian
		c := change{wd: int32(le.Uint32(b)), mask: le.Uint32(b[4:])}
		size := syscall.SizeofInotifyEvent + int(le.Uint32(b[12:]))
		if size > len(b) {
			break
		}
		name := b[syscall.SizeofInotifyEvent:size]
		for i, x := range name {
			if x == 0 {
				name = name[:i]
				break
			}
		}
		c.name = string(name)
		b = b[size:]
		// One and the same again tells nothing new.
		if len(to) == 0 || to[len(to)-1] != c {
			to = append(to, c)
		}
	}
	return to
}

// take sorts out the guest's own changes and tells the guest of the others.
func (w *watcher) take(changes []change) {
	for _, c := range changes {
		if c.mask&syscall.IN_Q_OVERFLOW != 0 {
			w.lostTrack()
			continue
		}
		n := w.dirOf(c.wd)
		if n == nil {
			continue
		}
		if c.mask&syscall.IN_IGNORED != 0 {
			w.mu.Lock()
			delete(w.dirs, c.wd)
			w.mu.Unlock()
			n.watch.CompareAndSwap(c.wd, 0)
			continue
		}
		if c.name != "" {
			w.one(n, c)
		}
	}
}

// one handles one change of a name in a directory.
func (w *watcher) one(n *node, c change) {
	s := w.share
	if !s.nodes.hang(n) {
		return
	}
	defer s.nodes.put(n)
	dir, err := s.nodes.directory(n)
	if err != nil {
		return
	}
	// While no change of the guest's is half noted.
	s.changing.Lock()
	st, err := statName(dir, c.name)
	there := err == nil
	s.nodes.mu.Lock()
	known := n.children[c.name]
	var now *node
	if there {
		now = s.nodes.byKey[keyOf(&st)]
	}
	own := now != nil && now.own == stampOf(&st)
	s.nodes.mu.Unlock()
	removal := c.mask&(syscall.IN_DELETE|syscall.IN_MOVED_FROM) != 0
	if removal {
		own = s.graves.take(n, c.name)
	}
	s.changing.Unlock()
	if own || there && !s.shown(&st) {
		return
	}
	var kind uint32
	switch {
	case there:
		kind = st.Mode & syscall.S_IFMT
	case c.mask&syscall.IN_ISDIR != 0:
		kind = syscall.S_IFDIR
	default:
		kind = syscall.S_IFREG
	}
	w.tell(n, c, kind, known, now, removal, there)
}

// tell has the guest's kernel forget, then its watchers see.
func (w *watcher) tell(n *node, c change, kind uint32, known, now *node, removal, there bool) {
	arrival := c.mask&(syscall.IN_CREATE|syscall.IN_MOVED_TO) != 0
	if removal || arrival {
		w.forget(fuse.InvalEntry(n.id, c.name))
		w.forget(fuse.InvalInode(n.id, false))
	}
	switch {
	case removal:
		if known != nil && known == now {
			return // it is there again, which has an event of its own
		}
		if c.mask&syscall.IN_ISDIR != 0 {
			kind = syscall.S_IFDIR
		} else if known != nil {
			kind = known.kind
		} else {
			kind = syscall.S_IFREG
		}
		w.enqueue(&raising{Event: w.event(n, c.name, sharewire.Deleted, kind), dir: n, old: known})
	case !there:
		// Gone since: its removal has an event of its own.
	case arrival:
		if known != nil && known != now {
			// Something else has taken its place: who watches the old one is to know.
			w.enqueue(&raising{Event: w.event(n, c.name, sharewire.Deleted, known.kind), dir: n, old: known})
		}
		w.enqueue(&raising{Event: w.event(n, c.name, sharewire.Created, kind), dir: n})
		if c.mask&syscall.IN_MOVED_TO != 0 && kind == syscall.S_IFREG {
			// Whole at once, as after being written and closed.
			w.enqueue(&raising{Event: w.event(n, c.name, sharewire.Closed, kind), dir: n})
		}
	default:
		what := byte(sharewire.Modified)
		switch {
		case c.mask&syscall.IN_ATTRIB != 0:
			what = sharewire.Attributes
		case c.mask&syscall.IN_CLOSE_WRITE != 0:
			what = sharewire.Closed
		}
		r := &raising{Event: w.event(n, c.name, what, kind), dir: n}
		if now != nil {
			w.forget(fuse.InvalInode(now.id, what != sharewire.Attributes))
			r.ino = w.share.inode(now.key)
		}
		w.enqueue(r)
	}
}

func (w *watcher) event(n *node, name string, what byte, kind uint32) sharewire.Event {
	return sharewire.Event{What: what, Type: byte(kind >> 12), Dir: n.id, Name: name}
}

// forget sends a notification; when that fails the connection is over, and the share with it.
func (w *watcher) forget(message []byte) { _ = w.share.send(sharewire.Notify, message) }

// lostTrack: inotify has dropped events.
func (w *watcher) lostTrack() {
	complain("too many changes at once: watchers in the VM have not seen all of them")
	w.forgetAll()
}

// place is where a node was found, with both taken hold of; dead: it is not there any more.
type place struct {
	n, dir *node
	name   string
	dead   bool
}

// forgetAll has the guest's kernel forget all that it knows of objects, and names that lead elsewhere by now.
// Other names stay: a directory whose name is forgotten is none to those who work in it (getcwd(2)).
func (w *watcher) forgetAll() {
	t := w.share.nodes
	var all []place
	t.mu.Lock()
	for _, n := range t.byID {
		if n.parent == nil {
			continue
		}
		name := n.name
		if n.dead && n.parent.children[name] != nil {
			name = "" // another's by now, which speaks for it
		}
		n.refs++
		n.parent.refs++
		all = append(all, place{n, n.parent, name, n.dead})
	}
	t.mu.Unlock()
	w.forget(fuse.InvalInode(fuse.RootID, true))
	for _, p := range all {
		if p.name != "" && !w.share.leads(p) {
			w.forget(fuse.InvalEntry(p.dir.id, p.name))
		}
		w.forget(fuse.InvalInode(p.n.id, true))
		t.put(p.n)
		t.put(p.dir)
	}
}

// leads tells whether a name leads to where it did.
func (s *Share) leads(p place) bool {
	if p.dead {
		return false
	}
	dir, err := s.nodes.directory(p.dir)
	if err != nil {
		return false
	}
	st, err := statName(dir, p.name)
	return err == nil && keyOf(&st) == p.n.key && st.Mode&syscall.S_IFMT == p.n.kind
}
