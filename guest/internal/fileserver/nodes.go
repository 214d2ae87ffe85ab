package fileserver

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
)

// key is what the host knows an object by.
type key struct{ dev, ino uint64 }

func keyOf(st *syscall.Stat_t) key { return key{uint64(st.Dev), st.Ino} }

// stamp tells whether an object has been changed since.
type stamp struct {
	ctime, mtime syscall.Timespec
	size         int64
}

func stampOf(st *syscall.Stat_t) stamp { return stamp{st.Ctim, st.Mtim, st.Size} }

// node is an object that the guest's kernel knows by a number. It is found again by its
// directory and name, checked to be the same object; what must not depend on its name (a
// directory in use, an open or removed file) has a descriptor. So a tree of a hundred
// thousand files takes no more descriptors than it has directories.
type node struct {
	id   uint64
	key  key
	kind uint32 // file type, as in a mode
	// phantom: there is no such object any more; it is there for a removal to be shown.
	phantom bool

	// The rest is guarded by table.mu.

	parent  *node
	name    string
	fd      int  // O_PATH, or -1
	keep    bool // a directory in use, a removed file: fd stays as long as the node
	handles int  // open ones; fd stays as long as there are any
	refs    int  // requests under way, and nodes whose parent this is
	lookups uint64
	dead    bool // removed by the guest: its name is another's
	// own is the object's stamp behind the guest's own last change.
	own stamp
	// opened is its stamp when the guest last opened it.
	opened   stamp
	children map[string]*node

	// watch is inotify's number for a directory; 0: it is not watched.
	watch atomic.Int32
}

// table holds the nodes of one share.
type table struct {
	mu     sync.Mutex
	byID   map[uint64]*node
	byKey  map[key]*node
	nextID uint64
	// onDrop is told of a directory that is not watched any more.
	onDrop func(watch int32)
}

func newTable(root int, st *syscall.Stat_t) *table {
	n := &node{id: fuse.RootID, key: keyOf(st), kind: st.Mode & syscall.S_IFMT, fd: root, keep: true, lookups: 1}
	return &table{
		byID: map[uint64]*node{n.id: n}, byKey: map[key]*node{n.key: n}, nextID: fuse.RootID + 1,
		onDrop: func(int32) {},
	}
}

// get takes hold of a node for a request; put must follow.
func (t *table) get(id uint64) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil {
		return nil, syscall.ESTALE
	}
	n.refs++
	return n, nil
}

// hang takes hold of a node that may just have been forgotten.
func (t *table) hang(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[n.id] != n {
		return false
	}
	n.refs++
	return true
}

func (t *table) put(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.refs--
	t.settle(n)
}

// settle gives back what nobody needs: a descriptor, or the node itself. The lock is held.
func (t *table) settle(n *node) {
	if n.refs == 0 && n.handles == 0 && !n.keep {
		closeFd(n.fd)
		n.fd = -1
	}
	for n != nil && n.lookups == 0 && n.refs == 0 && t.byID[n.id] == n {
		delete(t.byID, n.id)
		if t.byKey[n.key] == n {
			delete(t.byKey, n.key)
		}
		if watch := n.watch.Load(); watch > 0 {
			t.onDrop(watch)
		}
		closeFd(n.fd)
		n.fd = -1
		parent := n.parent
		if parent == nil {
			return
		}
		if parent.children[n.name] == n {
			delete(parent.children, n.name)
		}
		n.parent = nil
		parent.refs--
		n = parent
	}
}

// forget takes back count of the kernel's references.
func (t *table) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || id == fuse.RootID {
		return
	}
	n.lookups -= min(n.lookups, count)
	t.settle(n)
}

// place notes where a node is found; the lock is held.
func (t *table) place(n, parent *node, name string) {
	if n.parent == parent && n.name == name {
		return
	}
	if old := n.parent; old != nil {
		if old.children[n.name] == n {
			delete(old.children, n.name)
		}
		old.refs--
		defer t.settle(old)
	}
	n.parent, n.name = parent, name
	parent.refs++
	if parent.children == nil {
		parent.children = map[string]*node{}
	}
	parent.children[name] = n
}

// enter gives the node of an object that was found in a directory, and counts a reference
// of the kernel's.
func (t *table) enter(parent *node, name string, st *syscall.Stat_t) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[keyOf(st)]
	if n == nil || n.kind != st.Mode&syscall.S_IFMT {
		n = &node{id: t.nextID, key: keyOf(st), kind: st.Mode & syscall.S_IFMT, fd: -1}
		t.nextID++
		t.byID[n.id], t.byKey[n.key] = n, n
	}
	n.lookups++
	if n.id != fuse.RootID && !within(parent, n) {
		t.place(n, parent, name)
		n.dead = false
	}
	return n
}

// within tells whether n lies above or at dir, which only mounts of mounts can bring about.
func within(dir, n *node) bool {
	for ; dir != nil; dir = dir.parent {
		if dir == n {
			return true
		}
	}
	return false
}

// phantomOf makes the node of an object that is gone.
func (t *table) phantomOf(kind uint32) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &node{id: t.nextID, kind: kind, phantom: true, fd: -1, lookups: 1}
	t.nextID++
	t.byID[n.id] = n
	return n
}

// descriptor gives an O_PATH descriptor of a node; release must be called.
func (t *table) descriptor(n *node) (fd int, release func(), err error) {
	t.mu.Lock()
	if n.fd >= 0 {
		fd = n.fd
		t.mu.Unlock()
		return fd, func() {}, nil // the request's reference keeps it open
	}
	parent, name, dead := n.parent, n.name, n.dead
	if parent == nil || dead || n.phantom {
		t.mu.Unlock()
		return -1, nil, syscall.ESTALE
	}
	parent.refs++
	t.mu.Unlock()
	defer t.put(parent)
	dir, err := t.directory(parent)
	if err != nil {
		return -1, nil, err
	}
	fd, err = openName(dir, name, oPath, 0)
	if err != nil {
		return -1, nil, stale(err)
	}
	var st syscall.Stat_t
	if err = syscall.Fstat(fd, &st); err != nil || keyOf(&st) != n.key || st.Mode&syscall.S_IFMT != n.kind {
		closeFd(fd)
		return -1, nil, syscall.ESTALE
	}
	return fd, func() { closeFd(fd) }, nil
}

// stale: a name that leads nowhere any more is not what the guest asked about.
func stale(err error) error {
	if err == syscall.ENOENT || err == syscall.ENOTDIR {
		return syscall.ESTALE
	}
	return err
}

// directory gives a directory's descriptor, which it keeps from then on.
func (t *table) directory(n *node) (int, error) {
	if n.kind != syscall.S_IFDIR {
		return -1, syscall.ENOTDIR
	}
	return t.hold(n, func() { n.keep = true })
}

// hold makes a node keep its descriptor; how notes why, and is called with the lock held.
func (t *table) hold(n *node, how func()) (int, error) {
	fd, release, err := t.descriptor(n)
	if err != nil {
		return -1, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	how()
	if n.fd >= 0 {
		if n.fd != fd {
			release()
		}
		return n.fd, nil
	}
	n.fd = fd
	return fd, nil
}

// unhold notes that a handle is closed.
func (t *table) unhold(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.handles--
	t.settle(n)
}

// gone keeps the object that the guest is about to take a name from, and gives its node,
// nil if the guest does not know it. put must follow.
func (t *table) gone(st *syscall.Stat_t) *node {
	t.mu.Lock()
	n := t.byKey[keyOf(st)]
	if n == nil {
		t.mu.Unlock()
		return nil
	}
	n.refs++
	t.mu.Unlock()
	// Fails for one that the host has moved meanwhile: it is found by no name any more.
	_, _ = t.hold(n, func() { n.keep = true })
	return n
}

// lost notes that the guest has taken a name from a node.
func (t *table) lost(n, parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.parent == parent && n.name == name {
		n.dead = true
		if parent.children[name] == n {
			delete(parent.children, name)
		}
	}
}

// changed notes the guest's own change of a node.
func (t *table) changed(n *node, st *syscall.Stat_t) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.own = stampOf(st)
}

// grave is a name that the guest itself has taken away, until when that is remembered.
type grave struct {
	dir  uint64
	name string
}

// graves remember removals of the guest's own, so that the host's event of one is known.
type graves struct {
	mu  sync.Mutex
	dug map[grave]time.Time
}

// graveLife is far longer than an event takes to come.
const graveLife = 10 * time.Second

func (g *graves) dig(dir *node, name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.dug == nil {
		g.dug = map[grave]time.Time{}
	}
	if len(g.dug) > 4096 {
		for k, until := range g.dug {
			if now.After(until) {
				delete(g.dug, k)
			}
		}
	}
	g.dug[grave{dir.id, name}] = now.Add(graveLife)
}

// take tells whether the guest itself removed that name; the answer is used up.
func (g *graves) take(dir *node, name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := grave{dir.id, name}
	until, ok := g.dug[k]
	delete(g.dug, k)
	return ok && time.Now().Before(until)
}
