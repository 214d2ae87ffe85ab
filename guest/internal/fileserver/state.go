package fileserver

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"vmsan/guest/internal/fuse"
)

// What a file server knows of a VM's nodes and handles, kept in a file so that another one can
// go on where this one stopped: after the VM's memory was in a file itself. Objects are found again as
// always, by directory and name, and are compared; so what is read from a file that somebody has
// forged leads nowhere that the guest could not go by itself.

// kept is the file's content.
type kept struct {
	// Number is the agent's, for this time.
	Number uint64
	Shares []keptShare
}

type keptShare struct {
	// Root is the shared directory.
	Root       keptKey
	Nodes      []keptNode
	NextNode   uint64
	Handles    []keptHandle
	NextHandle uint64
}

type keptKey struct{ Dev, Ino uint64 }

func keepKey(k key) keptKey { return keptKey{k.dev, k.ino} }

type keptNode struct {
	ID, Parent uint64
	Name       string
	Key        keptKey
	Kind       uint32
	Lookups    uint64
	// Dead: it has no name any more.
	Dead    bool
	Watched bool
	// Mark tells what is open or a directory in use from what comes to have its inode number; empty: nothing
	// here does.
	Mark []byte
}

type keptHandle struct {
	ID, Node uint64
	// Flags it was opened with.
	Flags     int
	Directory bool
	Noop      bool
	// Lock that it had.
	Lock int
}

// keep writes what is known of all shares to a file.
func keep(path string, number uint64, shares []*Share) error {
	all := kept{Number: number}
	for _, s := range shares {
		all.Shares = append(all.Shares, s.known())
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&all); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = draft.Write(b.Bytes())
	err = errors.Join(err, draft.Sync(), draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		_ = os.Remove(draft.Name()) // as the error says
	}
	return err
}

// readKept reads such a file; nil: there is none.
func readKept(path string) *kept {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var all kept
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(b)).Decode(&all)
	}
	if err != nil {
		complain("%s: %v", path, err)
		return nil
	}
	return &all
}

// known tells what a share knows.
func (s *Share) known() keptShare {
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	s.handleMu.Lock()
	defer s.handleMu.Unlock()
	out := keptShare{Root: keepKey(s.root), NextNode: s.nodes.nextID, NextHandle: s.nextHandle}
	for _, n := range s.nodes.byID {
		if n.phantom {
			continue // it was there for an event that is over
		}
		k := keptNode{
			ID: n.id, Name: n.name, Key: keepKey(n.key), Kind: n.kind, Lookups: n.lookups, Dead: n.dead,
			Watched: n.watch.Load() > 0,
		}
		if n.parent != nil {
			k.Parent = n.parent.id
		}
		if n.fd >= 0 {
			k.Mark = markOf(n.fd)
		}
		out.Nodes = append(out.Nodes, k)
	}
	for id, h := range s.handles {
		out.Handles = append(out.Handles, keptHandle{ID: id, Node: h.node.id, Flags: h.flags, Directory: h.dir != nil, Noop: h.noop, Lock: h.lock})
	}
	return out
}

// resume takes over what another file server knew of the share. Objects that are not where they
// were are found to be so when they are used; handles of such are void.
func (s *Share) resume(k *keptShare) error {
	if err := s.nodes.resume(k, s.root); err != nil {
		return err
	}
	for _, kn := range k.Nodes {
		s.nodes.compare(s.nodes.byID[kn.ID], kn.Mark)
	}
	s.handleMu.Lock()
	s.nextHandle = max(k.NextHandle, 1)
	s.handleMu.Unlock()
	for _, h := range k.Handles {
		if err := s.resumeHandle(h); err != nil {
			return err
		}
	}
	for _, kn := range k.Nodes {
		n := s.nodes.byID[kn.ID]
		if !kn.Watched || n.id == fuse.RootID {
			continue
		}
		if fd, err := s.nodes.directory(n); err == nil { // else it has moved, and nobody finds it
			s.watcher.add(n, fd)
		}
	}
	return nil
}

// resumeHandle opens a handle again; what cannot be opened is void: ESTALE.
func (s *Share) resumeHandle(k keptHandle) error {
	n := s.nodes.byID[k.Node]
	if n == nil || k.ID == 0 || k.ID >= s.nextHandle || s.handles[k.ID] != nil || len(s.handles) >= maxHandles {
		return fmt.Errorf("handle %d of node %d", k.ID, k.Node)
	}
	h := &handle{fd: -1, node: n, noop: k.Noop, flags: k.Flags & keptFlags}
	s.handles[k.ID] = h
	if k.Directory {
		h.dir = &listing{}
		if path, err := s.nodes.directory(n); err == nil {
			if fd, err := reopen(path, syscall.O_RDONLY|syscall.O_DIRECTORY); err == nil {
				h.fd = fd
			}
		}
		h.void = h.fd < 0
		return nil
	}
	if k.Noop {
		return nil
	}
	if n.kind != syscall.S_IFREG {
		return fmt.Errorf("handle %d of node %d, which is no file", k.ID, k.Node)
	}
	if s.readonly {
		h.flags &^= syscall.O_ACCMODE
	}
	path, err := s.nodes.hold(n, func() { n.handles++ })
	if err != nil {
		h.void = true
		s.nodes.mu.Lock()
		n.handles++ // RELEASE takes it back
		s.nodes.mu.Unlock()
		return nil
	}
	fd, err := reopen(path, h.flags|syscall.O_NONBLOCK|syscall.O_NOCTTY)
	h.fd, h.void = fd, err != nil
	if err == nil && s.volume && !h.relock(k.Lock) {
		h.void = true // its owner believes to be alone with the file
	}
	return nil
}

// keptFlags are those of open(2) that a handle is opened with again.
const keptFlags = syscall.O_ACCMODE | syscall.O_APPEND | syscall.O_SYNC | syscall.O_DSYNC

// resume takes over nodes. root is the shared directory now: a device's number may be another since
// the host has started.
func (t *table) resume(k *keptShare, root key) error {
	if k.Root.Ino != root.ino {
		return errors.New("the shared directory is another one")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextID = max(k.NextNode, fuse.RootID+1)
	for _, kn := range k.Nodes {
		where := key{kn.Key.Dev, kn.Key.Ino}
		if where.dev == k.Root.Dev {
			where.dev = root.dev
		}
		if kn.ID == fuse.RootID {
			t.byID[fuse.RootID].lookups = max(kn.Lookups, 1)
			continue
		}
		if kn.ID == 0 || kn.ID >= t.nextID || t.byID[kn.ID] != nil || kn.Kind&^syscall.S_IFMT != 0 {
			return fmt.Errorf("node %d", kn.ID)
		}
		n := &node{id: kn.ID, key: where, kind: kn.Kind, fd: -1, lookups: kn.Lookups, dead: kn.Dead, keep: kn.Kind == syscall.S_IFDIR}
		t.byID[n.id] = n
		if !n.dead && t.byKey[where] == nil {
			t.byKey[where] = n
		}
	}
	for _, kn := range k.Nodes {
		n, parent := t.byID[kn.ID], t.byID[kn.Parent]
		if kn.ID == fuse.RootID || kn.Parent == 0 {
			continue
		}
		if parent == nil || parent.kind != syscall.S_IFDIR || badName(kn.Name) || within(parent, n) {
			return fmt.Errorf("node %d in %d", kn.ID, kn.Parent)
		}
		n.parent, n.name = parent, kn.Name
		parent.refs++
		if !n.dead {
			if parent.children == nil {
				parent.children = map[string]*node{}
			}
			parent.children[kn.Name] = n
		}
	}
	return nil
}

// compare buries a node in whose place is another object by now, even one of the same inode number: what
// the guest has of it is stale, and what it finds by that name is new.
func (t *table) compare(n *node, mark []byte) {
	if len(mark) == 0 || n.id == fuse.RootID || n.dead {
		return
	}
	fd, release, err := t.descriptor(n)
	if err == nil {
		same := bytes.Equal(markOf(fd), mark)
		release()
		if same {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n.dead = true
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	if n.parent != nil && n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
}
