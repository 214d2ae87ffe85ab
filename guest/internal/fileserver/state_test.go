package fileserver

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
)

// again gives what another file server knows that goes on where this one stops.
func (g *guest) again(o Options) *guest {
	g.t.Helper()
	path := filepath.Join(g.t.TempDir(), "state")
	check(g.t, keep(path, 5, []*Share{g.share}))
	before := readKept(path)
	if before == nil || before.Number != 5 || len(before.Shares) != 1 {
		g.t.Fatalf("kept: %v", before)
	}
	return g.from(o, before.Shares[0])
}

// from gives another file server that goes on from what one knew.
func (g *guest) from(o Options, known keptShare) *guest {
	g.t.Helper()
	o.Source = g.inside
	share, err := Open(0, o, func(byte, []byte) error { return nil })
	check(g.t, err)
	g.t.Cleanup(share.Close)
	check(g.t, share.resume(&known))
	other := *g
	other.share = share
	return &other
}

// Nodes and open handles stand for the same objects in the next file server.
func TestGoesOn(t *testing.T) {
	g := newGuest(t, Options{})
	check(t, os.WriteFile(filepath.Join(g.inside, "sub", "deep"), []byte("deep"), 0o644))
	sub := g.find(fuse.RootID, "sub")
	deep := g.find(sub, "deep")
	file := g.find(fuse.RootID, "file")
	reading, err := g.open(file, syscall.O_RDONLY)
	check(t, err)
	appending, err := g.open(deep, syscall.O_WRONLY|syscall.O_APPEND)
	check(t, err)
	listing, err := g.ask(fuse.OpOpendir, sub, zeros(8))
	check(t, err)
	removed, err := g.ask(fuse.OpCreate, sub, uint32(syscall.O_RDWR|syscall.O_CREAT), uint32(0o644), uint32(0), uint32(0), "removed")
	check(t, err)
	check(t, os.Remove(filepath.Join(g.inside, "sub", "removed")))

	next := g.again(Options{})
	if got, err := next.read(reading); err != nil || got != "content" {
		t.Errorf("a handle for reading: %q %v", got, err)
	}
	if _, err := next.ask(fuse.OpWrite, deep, appending, uint64(0), uint32(4), uint32(0), uint64(0), uint64(0), []byte(" sea")); err != nil {
		t.Errorf("a handle for appending: %v", err)
	}
	if b, _ := os.ReadFile(filepath.Join(g.inside, "sub", "deep")); string(b) != "deep sea" {
		t.Errorf("the file is %q", b)
	}
	if _, err := next.ask(fuse.OpReaddir, sub, binary.LittleEndian.Uint64(listing), uint64(0), uint32(4096), zeros(20)); err != nil {
		t.Errorf("a directory: %v", err)
	}
	if _, err := next.read(binary.LittleEndian.Uint64(removed[fuse.EntryLen:])); err != syscall.ESTALE {
		t.Errorf("an open file that was removed: %v", err)
	}
	if _, err := next.ask(fuse.OpGetattr, deep, zeros(16)); err != nil {
		t.Errorf("a node: %v", err)
	}
	if again := next.find(sub, "deep"); again != deep {
		t.Errorf("the node %d is now %d", deep, again)
	}
	if fresh, err := next.open(deep, syscall.O_RDONLY); err != nil || fresh <= appending {
		t.Errorf("a new handle: %d %v", fresh, err)
	}
}

// What was exchanged in between is not taken for what it was.
func TestExchangedWhileAsleep(t *testing.T) {
	g := newGuest(t, Options{})
	file, sub := g.find(fuse.RootID, "file"), g.find(fuse.RootID, "sub")
	handle, err := g.open(file, syscall.O_RDWR)
	check(t, err)
	check(t, os.Remove(filepath.Join(g.inside, "file")))
	check(t, os.Symlink("../outside/secret", filepath.Join(g.inside, "file")))
	check(t, os.Remove(filepath.Join(g.inside, "sub")))
	check(t, os.Symlink("../outside", filepath.Join(g.inside, "sub")))
	next := g.again(Options{})
	if got, err := next.read(handle); err != syscall.ESTALE {
		t.Errorf("the handle: %q %v", got, err)
	}
	if _, err := next.ask(fuse.OpLookup, sub, "secret"); err != syscall.ESTALE {
		t.Errorf("the directory: %v", err)
	}
	g.untouched("exchange")
}

// A file of the same name that has come to have the inode number of one that was open is another one.
func TestSameNumber(t *testing.T) {
	g := newGuest(t, Options{})
	file := g.find(fuse.RootID, "file")
	handle, err := g.open(file, syscall.O_RDWR)
	check(t, err)
	known := g.share.known()
	for i := range known.Nodes {
		if n := &known.Nodes[i]; n.ID == file {
			if len(n.Mark) == 0 {
				t.Skip("the file system of the tests tells nothing but inode numbers")
			}
			n.Mark[len(n.Mark)-1] ^= 1 // as of one that had the number before
		}
	}
	next := g.from(Options{}, known)
	if got, err := next.read(handle); err != syscall.ESTALE {
		t.Errorf("the handle: %q %v", got, err)
	}
	fresh := next.find(fuse.RootID, "file")
	if fresh == file {
		t.Error("the new file has the old one's node")
	}
	opened, err := next.open(fresh, syscall.O_RDONLY)
	check(t, err)
	if got, err := next.read(opened); err != nil || got != "content" {
		t.Errorf("the new file: %q %v", got, err)
	}
}

// Two go on from what one knew, and neither takes anything from the other.
func TestTwoGoOn(t *testing.T) {
	g := newGuest(t, Options{})
	file, sub := g.find(fuse.RootID, "file"), g.find(fuse.RootID, "sub")
	handle, err := g.open(file, syscall.O_RDWR)
	check(t, err)
	known := g.share.known()
	one, other := g.from(Options{}, known), g.from(Options{}, known)
	_, err = one.ask(fuse.OpRelease, file, handle, zeros(16))
	check(t, err)
	_, err = one.ask(fuse.OpUnlink, sub, "none")
	if err != syscall.ENOENT {
		t.Errorf("what is not there is removed: %v", err)
	}
	for who, x := range map[string]*guest{"the other clone": other, "the source": g} {
		if got, err := x.read(handle); err != nil || got != "content" {
			t.Errorf("%s: %q %v", who, got, err)
		}
	}
	if _, err := one.read(handle); err != syscall.EBADF {
		t.Errorf("closed, and read: %v", err)
	}
}

// The guest forgets names that lead elsewhere by now, and no others: somebody may work in such a directory.
func TestForgetsWhatHasMoved(t *testing.T) {
	g := newGuest(t, Options{})
	sub := g.find(fuse.RootID, "sub")
	file := g.find(fuse.RootID, "file")
	check(t, os.Rename(filepath.Join(g.inside, "file"), filepath.Join(g.inside, "sub", "file")))
	next := g.from(Options{}, g.share.known())
	var mu sync.Mutex
	told := map[string]bool{}
	next.share.send = func(kind byte, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		told[string(b)] = true
		return nil
	}
	next.share.watcher.forgetAll()
	mu.Lock()
	defer mu.Unlock()
	for _, id := range []uint64{fuse.RootID, sub, file} {
		if !told[string(fuse.InvalInode(id, true))] {
			t.Errorf("the node %d is not forgotten", id)
		}
	}
	if !told[string(fuse.InvalEntry(fuse.RootID, "file"))] {
		t.Error("the name of what has moved is not forgotten")
	}
	if told[string(fuse.InvalEntry(fuse.RootID, "sub"))] {
		t.Error("the name of what is where it was is forgotten")
	}
}

// A file with what was known leads nowhere that a guest could not go.
func TestForgedState(t *testing.T) {
	g := newGuest(t, Options{Readonly: true})
	g.find(fuse.RootID, "file")
	good := g.share.known()
	root := keepKey(g.share.root)
	dir := keptKey{root.Dev, 1 << 40}
	for what, forged := range map[string]keptShare{
		"another root": {Root: keptKey{root.Dev, root.Ino + 1}},
		"a path":       {Root: root, NextNode: 9, Nodes: []keptNode{{ID: 2, Parent: 1, Name: "../outside", Key: dir, Kind: syscall.S_IFDIR}}},
		"two dots":     {Root: root, NextNode: 9, Nodes: []keptNode{{ID: 2, Parent: 1, Name: "..", Key: dir, Kind: syscall.S_IFDIR}}},
		"a circle": {Root: root, NextNode: 9, Nodes: []keptNode{
			{ID: 2, Parent: 3, Name: "a", Key: dir, Kind: syscall.S_IFDIR}, {ID: 3, Parent: 2, Name: "b", Key: keptKey{1, 2}, Kind: syscall.S_IFDIR},
		}},
		"no parent":     {Root: root, NextNode: 9, Nodes: []keptNode{{ID: 2, Parent: 7, Name: "a", Key: dir, Kind: syscall.S_IFDIR}}},
		"twice":         {Root: root, NextNode: 9, Nodes: append(good.Nodes, good.Nodes...)},
		"no such node":  {Root: root, NextNode: 9, NextHandle: 9, Handles: []keptHandle{{ID: 1, Node: 5}}},
		"beyond number": {Root: root, NextNode: 2, Nodes: []keptNode{{ID: 2, Parent: 1, Name: "a", Key: dir, Kind: syscall.S_IFDIR}}},
	} {
		share, err := Open(0, Options{Source: g.inside}, g.share.send)
		check(t, err)
		if share.resume(&forged) == nil {
			t.Errorf("%s: is taken", what)
		}
		share.Close()
	}
	// Flags for writing, on a share that is only read.
	good = g.share.known()
	good.NextHandle = 9
	good.Handles = []keptHandle{{ID: 1, Node: g.find(fuse.RootID, "file"), Flags: syscall.O_RDWR | syscall.O_TRUNC | syscall.O_CREAT}}
	share, err := Open(0, Options{Source: g.inside, Readonly: true}, g.share.send)
	check(t, err)
	defer share.Close()
	check(t, share.resume(&good))
	if _, err := syscall.Write(share.handles[1].fd, []byte("x")); err != syscall.EBADF {
		t.Errorf("it is written to: %v", err)
	}
	g.untouched("forgery")
}
