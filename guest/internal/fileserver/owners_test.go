package fileserver

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
)

// ownerOf is the owner that LOOKUP tells of a name.
func (g *guest) ownerOf(name string) uint32 {
	g.t.Helper()
	reply, err := g.ask(fuse.OpLookup, fuse.RootID, name)
	check(g.t, err)
	return binary.LittleEndian.Uint32(reply[40+6*8+5*4:])
}

// makeAs has a user of the guest make a directory, and gives its owner on the host.
func (g *guest) makeAs(uid uint32, dir uint64, path string) uint32 {
	g.t.Helper()
	body := append(make([]byte, 8), filepath.Base(path)+"\x00"...)
	r := fuse.Request{Opcode: fuse.OpMkdir, Node: dir, UID: uid, GID: uid, Body: body}
	_, err, _ := g.share.answer(&r, make([]byte, 0, 1<<10))
	check(g.t, err)
	var st syscall.Stat_t
	check(g.t, syscall.Stat(filepath.Join(g.inside, path), &st))
	return st.Uid
}

// chown as the guest's kernel asks for it.
func (g *guest) chown(node uint64, uid uint32) error {
	_, err := g.ask(fuse.OpSetattr, node, uint32(fuse.AttrUID), uint32(0), zeros(68), uid, uid, uint32(0))
	return err
}

// As root: what is root's on the host is the VM's user's in the guest.
func TestOwnersAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	g := newGuest(t, Options{})
	g.share.owner.Store(&owner{1000, 1000})
	for name, uid := range map[string]int{"of-1000": 1000, "of-33": 33} {
		check(t, os.Mkdir(filepath.Join(g.inside, name), 0o777))
		check(t, os.Chown(filepath.Join(g.inside, name), uid, uid))
	}
	for name, want := range map[string]uint32{"file": 1000, "of-1000": 1000, "of-33": 33} {
		if got := g.ownerOf(name); got != want {
			t.Errorf("%s belongs to %d in the guest, not %d", name, got, want)
		}
	}
	of1000, of33 := g.find(fuse.RootID, "of-1000"), g.find(fuse.RootID, "of-33")
	for _, c := range []struct {
		as   uint32
		dir  uint64
		path string
		want uint32
	}{
		{1000, fuse.RootID, "a", 0}, {1000, of1000, "of-1000/a", 1000}, {1000, of33, "of-33/a", 0},
		{0, fuse.RootID, "b", 0}, {0, of1000, "of-1000/b", 0}, {33, fuse.RootID, "c", 33},
	} {
		if got := g.makeAs(c.as, c.dir, c.path); got != c.want {
			t.Errorf("%s, made by %d, belongs to %d on the host, not %d", c.path, c.as, got, c.want)
		}
	}
	file := g.find(fuse.RootID, "file")
	for _, c := range []struct{ to, want uint32 }{{1000, 0}, {33, 33}, {1000, 1000}, {0, 0}} {
		check(t, g.chown(file, c.to))
		var st syscall.Stat_t
		check(t, syscall.Stat(filepath.Join(g.inside, "file"), &st))
		if st.Uid != c.want {
			t.Errorf("given to %d it belongs to %d on the host, not %d", c.to, st.Uid, c.want)
		}
	}
}

// As an ordinary user: what is that user's is the VM's user's, the rest nobody's.
func TestOwnersOfAnOrdinaryUser(t *testing.T) {
	g := newGuest(t, Options{})
	g.share.squash = true
	g.share.owner.Store(&owner{1000, 1000})
	if got := g.ownerOf("file"); got != 1000 {
		t.Errorf("its own file belongs to %d in the guest", got)
	}
	file := g.find(fuse.RootID, "file")
	check(t, g.chown(file, 1000))
	if err := g.chown(file, 33); err != syscall.EPERM {
		t.Errorf("it is given away: %v", err)
	}
	g.share.uid++ // another's process
	if got := g.ownerOf("file"); got != nobody {
		t.Errorf("another's file belongs to %d in the guest", got)
	}
	if got := g.makeAs(5, fuse.RootID, "made"); got != uint32(os.Geteuid()) {
		t.Errorf("what is made belongs to %d", got)
	}
}
