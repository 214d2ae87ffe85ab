package fileserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
)

// create makes a file and opens it for writing; its node and handle.
func (g *guest) create(name string) (node, handle uint64, err error) {
	reply, err := g.ask(fuse.OpCreate, fuse.RootID, uint32(syscall.O_RDWR|syscall.O_CREAT), uint32(0o644), uint32(0), uint32(0), name)
	if err != nil {
		return 0, 0, err
	}
	le := binary.LittleEndian
	return le.Uint64(reply), le.Uint64(reply[fuse.EntryLen:]), nil
}

// fill writes MiB by MiB until that is refused, up to most; how many there are.
func (g *guest) fill(h uint64, most int) (int, error) {
	for n := range most {
		_, err := g.ask(fuse.OpWrite, fuse.RootID, h, uint64(n)<<20, uint32(1<<20), zeros(20), zeros(1<<20))
		if err != nil {
			return n, err
		}
	}
	return most, nil
}

func (g *guest) remove(name string) {
	g.t.Helper()
	_, err := g.ask(fuse.OpUnlink, fuse.RootID, name)
	check(g.t, err)
}

const mib = 1 << 20

// A guest cannot have more in a volume than its limit, in whatever way it tries; what is there may be written over, and
// what is given back is there again.
func TestLimit(t *testing.T) {
	g := newGuest(t, Options{Volume: true, Limit: 40 * mib})
	_, h, err := g.create("large")
	check(t, err)
	n, err := g.fill(h, 100)
	if !errors.Is(err, syscall.ENOSPC) || n < 35 || n > 40 {
		t.Fatalf("%d MiB of 40, %v", n, err)
	}
	if n, err := g.fill(h, n); err != nil {
		t.Errorf("written over: MiB %d: %v", n, err)
	}
	_, other, err := g.create("other")
	check(t, err)
	for what, op := range map[string][]any{
		"fallocate": {other, uint64(0), uint64(8 * mib), uint32(0), uint32(0)},
	} {
		if _, err := g.ask(fuse.OpFallocate, fuse.RootID, op...); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := g.ask(fuse.OpCopyFileRange, fuse.RootID, h, uint64(0), uint64(0), other, uint64(0), uint64(8*mib), uint64(0)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("copied: %v", err)
	}
	if blocks, free := g.sizes(); blocks != 40*mib || free > 5*mib {
		t.Errorf("%d bytes, %d free", blocks, free)
	}
	// Written to its end, whatever place is said.
	appending, err := g.open(g.find(fuse.RootID, "large"), syscall.O_WRONLY|syscall.O_APPEND)
	check(t, err)
	for range 5 {
		_, err = g.ask(fuse.OpWrite, fuse.RootID, appending, uint64(0), uint32(1<<20), zeros(20), zeros(1<<20))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("appended: %v", err)
	}
	// Its name is gone, its blocks are not while it is open.
	g.remove("large")
	if n, err := g.fill(other, 20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d MiB beside a removed file that is open, %v", n, err)
	}
	for _, one := range []uint64{h, appending} {
		_, err = g.ask(fuse.OpRelease, fuse.RootID, one, zeros(16))
		check(t, err)
	}
	g.forgetAll()
	if n, err := g.fill(other, 30); err != nil {
		t.Errorf("what was given back: %d MiB, %v", n, err)
	}
}

// Blocks behind a file's end make nobody believe that there are some in its holes.
func TestLimitAndHoles(t *testing.T) {
	g := newGuest(t, Options{Volume: true, Limit: 40 * mib})
	_, h, err := g.create("holes")
	check(t, err)
	check(t, os.Truncate(filepath.Join(g.inside, "holes"), 20*mib))
	const keepSize = 1
	_, err = g.ask(fuse.OpFallocate, fuse.RootID, h, uint64(20*mib), uint64(38*mib), uint32(keepSize), uint32(0))
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the file system here reserves nothing")
	}
	check(t, err)
	n, err := g.fill(h, 20)
	if !errors.Is(err, syscall.ENOSPC) || n > 4 {
		t.Errorf("%d MiB in holes beside 38 of 40, %v", n, err)
	}
}

// So many objects as a disk of its size has, and several guests of a volume have one limit.
func TestLimitOfObjects(t *testing.T) {
	one, two := twoGuests(t)
	for _, g := range []*guest{one, two} {
		g.share.room.limit = 8 * mib // 512 objects
		top, err := openSource(g.inside, false)
		check(t, err)
		g.share.room.top = top
	}
	made := 0
	for _, g := range []*guest{one, two, one, two} {
		for i := range 600 {
			_, err := g.ask(fuse.OpMkdir, fuse.RootID, uint32(0o755), uint32(0), fmt.Sprintf("%p-%d-%d", g, made, i))
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			check(t, err)
			made++
		}
	}
	if made < 480 || made > 512 {
		t.Errorf("%d directories in a volume for 512", made)
	}
}

// What cannot be looked into is not taken for gone.
func TestLimitWithHiddenFiles(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root looks into everything")
	}
	g := newGuest(t, Options{Volume: true, Limit: 40 * mib})
	_, h, err := g.create("large")
	check(t, err)
	_, _ = g.fill(h, 30)
	check(t, os.Rename(filepath.Join(g.inside, "large"), filepath.Join(g.inside, "sub/large")))
	check(t, os.Chmod(filepath.Join(g.inside, "sub"), 0))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(g.inside, "sub"), 0o755) })
	_, other, err := g.create("other")
	check(t, err)
	if n, err := g.fill(other, 40); !errors.Is(err, syscall.ENOSPC) || n > 12 {
		t.Errorf("%d MiB beside 30 of 40, %v", n, err)
	}
}

// Every share leaves the host something: the guest sees that much less.
func TestHostReserve(t *testing.T) {
	g := newGuest(t, Options{})
	var fs syscall.Statfs_t
	check(t, syscall.Statfs(g.inside, &fs))
	reserve := min(int64(hostReserve), int64(fs.Blocks)*fs.Frsize/10)
	_, free := g.sizes()
	if left := int64(fs.Bavail)*fs.Frsize - free; left < reserve/2 || left > 2*reserve {
		t.Errorf("%d bytes less than the host has, %d are its reserve", left, reserve)
	}
	bytes, objects := hostFree(&syscall.Statfs_t{Frsize: 4096, Blocks: 1 << 20, Bavail: 100 << 8, Files: 1000, Ffree: 9})
	if bytes != 0 || objects != 0 {
		t.Errorf("of a host that is full: %d bytes, %d objects", bytes, objects)
	}
}

// A guest that fills a directory of the host leaves a tenth of a small file system.
func TestHostStaysUsable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	small := t.TempDir()
	check(t, syscall.Mount("none", small, "tmpfs", 0, "size=64m"))
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	share, err := Open(0, Options{Source: small}, func(byte, []byte) error { return nil })
	check(t, err)
	t.Cleanup(share.Close)
	g := &guest{t: t, share: share, inside: small, pid: 7}
	_, h, err := g.create("large")
	check(t, err)
	n, err := g.fill(h, 64)
	if !errors.Is(err, syscall.ENOSPC) || n < 50 || n > 58 {
		t.Errorf("%d MiB of 64, %v", n, err)
	}
	// Who has room there can write.
	check(t, os.WriteFile(filepath.Join(small, "of the host"), zeros(5<<20), 0o600))
}

// sizes of the file system, as the guest sees them.
func (g *guest) sizes() (size, free int64) {
	g.t.Helper()
	reply, err := g.ask(fuse.OpStatfs, fuse.RootID)
	check(g.t, err)
	le := binary.LittleEndian
	frsize := int64(le.Uint32(reply[48:]))
	return int64(le.Uint64(reply)) * frsize, int64(le.Uint64(reply[16:])) * frsize
}

// forgetAll has the guest's kernel forget what it knew, but for the root.
func (g *guest) forgetAll() {
	for id := range g.share.nodes.byID {
		if id != fuse.RootID {
			g.share.nodes.forget(id, 1<<40)
		}
	}
}
