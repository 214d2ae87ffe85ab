package fileserver

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
)

// A guest that wants out of a volume gets no further than one that wants out of a shared directory.
func TestHostileGuestsOfVolumes(t *testing.T) {
	asVolumes = true
	defer func() { asVolumes = false }()
	for name, test := range map[string]func(*testing.T){
		"names": TestNames, "links": TestLinks, "races": TestRaces, "replaced": TestReplaced, "special": TestSpecial,
		"forged": TestForged, "readonly": TestReadonly, "hidden": TestHidden, "single": TestSingleFileHasNoNames,
	} {
		t.Run(name, test)
	}
}

// As root: numbers are the same on both sides, whoever the VM's user is.
func TestOwnersOfVolumes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	g := newGuest(t, Options{Volume: true})
	g.share.owner.Store(&owner{1000, 1000})
	for name, uid := range map[string]int{"of-0": 0, "of-1000": 1000, "of-33": 33} {
		check(t, os.Mkdir(filepath.Join(g.inside, name), 0o777))
		check(t, os.Chown(filepath.Join(g.inside, name), uid, uid))
		if got := g.ownerOf(name); got != uint32(uid) {
			t.Errorf("%s belongs to %d in the guest", name, got)
		}
		for _, as := range []uint32{0, 33, 1000} {
			made := filepath.Join(name, string(rune('a'+as%26)))
			if got := g.makeAs(as, g.find(fuse.RootID, name), made); got != as {
				t.Errorf("%s, made by %d, belongs to %d on the host", made, as, got)
			}
		}
	}
}

// Two guests of one volume, a file server each.
func twoGuests(t *testing.T) (one, two *guest) {
	t.Helper()
	one = newGuest(t, Options{Volume: true})
	share, err := Open(0, Options{Source: one.inside, Volume: true}, func(byte, []byte) error { return nil })
	check(t, err)
	t.Cleanup(share.Close)
	two = &guest{t: t, share: share, inside: one.inside, outside: one.outside, pid: 8}
	return one, two
}

func (g *guest) write(h uint64, offset uint64, text string) {
	g.t.Helper()
	_, err := g.ask(fuse.OpWrite, fuse.RootID, h, offset, uint32(len(text)), zeros(20), []byte(text))
	check(g.t, err)
}

// attributesOf a file: how long its kernel may believe them, and when it was changed last.
func (g *guest) attributesOf(name string) (valid uint64, seconds uint64, nanoseconds uint32) {
	g.t.Helper()
	reply, err := g.ask(fuse.OpGetattr, g.find(fuse.RootID, name), zeros(16))
	check(g.t, err)
	le := binary.LittleEndian
	return le.Uint64(reply), le.Uint64(reply[16+4*8:]), le.Uint32(reply[16+6*8+4:])
}

// What one writes the next look of another one must find: nothing of a file is believed for any time, and no two
// writings leave the same time, however soon one follows the other.
func TestNothingIsMissed(t *testing.T) {
	one, two := twoGuests(t)
	a, err := one.open(one.find(fuse.RootID, "file"), syscall.O_RDWR)
	check(t, err)
	b, err := two.open(two.find(fuse.RootID, "file"), syscall.O_RDWR)
	check(t, err)
	seen := map[[2]uint64]bool{}
	for range 200 {
		for _, w := range []struct {
			g *guest
			h uint64
		}{{one, a}, {two, b}} {
			w.g.write(w.h, 0, "same size")
			valid, sec, nsec := one.attributesOf("file")
			if valid != 0 {
				t.Fatalf("attributes are believed for %d s", valid)
			}
			if key := [2]uint64{sec, uint64(nsec)}; seen[key] {
				t.Fatal("two writings have left the same time")
			} else {
				seen[key] = true
			}
		}
	}
	reply, err := one.ask(fuse.OpLookup, fuse.RootID, "none")
	check(t, err)
	if node, valid := binary.LittleEndian.Uint64(reply), binary.LittleEndian.Uint64(reply[16:]); node != 0 || valid != 0 {
		t.Errorf("that there is none is believed for %d s", valid)
	}
}

// Appends of two guests go one behind the other, wherever each believes the end to be.
func TestAppends(t *testing.T) {
	one, two := twoGuests(t)
	a, err := one.open(one.find(fuse.RootID, "file"), syscall.O_WRONLY|syscall.O_APPEND)
	check(t, err)
	b, err := two.open(two.find(fuse.RootID, "file"), syscall.O_WRONLY|syscall.O_APPEND)
	check(t, err)
	one.write(a, 7, "one")
	two.write(b, 7, "two")
	one.write(a, 10, "three")
	if text, _ := os.ReadFile(filepath.Join(one.inside, "file")); string(text) != "contentonetwothree" {
		t.Errorf("the file holds %q", text)
	}
}

// A part of a volume is found by its names alone.
func TestPart(t *testing.T) {
	top := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(top, "volume", "a", "b"), 0o755))
	check(t, os.Mkdir(filepath.Join(top, "outside"), 0o755))
	check(t, os.WriteFile(filepath.Join(top, "volume", "a", "file"), nil, 0o644))
	check(t, os.Symlink("../outside", filepath.Join(top, "volume", "link")))
	check(t, os.Symlink("b", filepath.Join(top, "volume", "a", "link")))
	for _, c := range []struct {
		part string
		file bool
		ok   bool
	}{
		{"a", false, true}, {"a/b", false, true}, {"a/file", true, true}, {"a/file", false, false}, {"a/b", true, false},
		{"link", false, false}, {"a/link", false, false}, {"link/x", false, false}, {"..", false, false},
		{"../outside", false, false}, {"a/../..", false, false}, {"", false, true}, {"none", false, false}, {"/", false, false},
	} {
		o := Options{Source: filepath.Join(top, "volume"), Part: c.part, File: c.file, Volume: true}
		share, err := Open(0, o, func(byte, []byte) error { return nil })
		if err == nil {
			share.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%q (file: %v): %v", c.part, c.file, err)
		}
	}
}

// lock asks for a file's lock, or gives it back.
func (g *guest) lock(h uint64, kind, flags uint32) error {
	_, err := g.ask(fuse.OpSetlk, fuse.RootID, h, uint64(g.pid), uint64(0), uint64(1<<62), kind, uint32(0), flags, uint32(0))
	return err
}

// A lock is one guest's until it gives it back, closes the file, or ends; one that has slept has it still, or nothing of the file.
func TestLocks(t *testing.T) {
	one, two := twoGuests(t)
	opened := func(g *guest) uint64 {
		t.Helper()
		h, err := g.open(g.find(fuse.RootID, "file"), syscall.O_RDWR)
		check(t, err)
		return h
	}
	a, b := opened(one), opened(two)
	const shared, alone, none, whole = syscall.F_RDLCK, syscall.F_WRLCK, syscall.F_UNLCK, fuse.LockFlock
	for i, c := range []struct {
		g     *guest
		h     uint64
		kind  uint32
		error error
	}{
		{one, a, alone, nil}, {two, b, alone, syscall.EAGAIN}, {two, b, shared, syscall.EAGAIN}, {one, a, shared, nil},
		{two, b, shared, nil}, {one, a, alone, syscall.EAGAIN}, {two, b, none, nil}, {one, a, alone, nil},
	} {
		if err := c.g.lock(c.h, c.kind, whole); err != c.error {
			t.Fatalf("%d: %v", i, err)
		}
	}
	// Asleep: another file server goes on. First with the lock, then without.
	state := filepath.Join(t.TempDir(), "state")
	check(t, keep(state, 1, []*Share{one.share}))
	_, err := one.ask(fuse.OpRelease, fuse.RootID, a, zeros(16))
	check(t, err)
	goesOn := func() *guest {
		t.Helper()
		share, err := Open(0, Options{Source: one.inside, Volume: true}, func(byte, []byte) error { return nil })
		check(t, err)
		check(t, share.resume(&readKept(state).Shares[0]))
		return &guest{t: t, share: share, inside: one.inside, pid: 7}
	}
	again := goesOn()
	if text, err := again.read(a); err != nil || text != "content" {
		t.Errorf("read %q: %v", text, err)
	}
	if err := two.lock(b, alone, whole); err != syscall.EAGAIN {
		t.Errorf("it is not locked any more: %v", err)
	}
	again.share.Close()
	check(t, two.lock(b, alone, whole))
	late := goesOn()
	defer late.share.Close()
	if _, err := late.read(a); err != syscall.ESTALE {
		t.Errorf("with another's lock it is read: %v", err)
	}
	if err := two.lock(b, alone, 0); err != syscall.EINVAL {
		t.Errorf("a lock of another kind: %v", err)
	}
	g := newGuest(t, Options{})
	if err := g.lock(opened(g), alone, whole); err != syscall.EINVAL {
		t.Errorf("a shared directory's lock: %v", err)
	}
}
