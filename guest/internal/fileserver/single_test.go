package fileserver

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
)

// newSingle shares one file that has a secret beside it.
func newSingle(t *testing.T, readonly bool) (*guest, string) {
	t.Helper()
	top := t.TempDir()
	path := filepath.Join(top, "file")
	check(t, os.WriteFile(path, []byte("content"), 0o644))
	check(t, os.WriteFile(filepath.Join(top, "secret"), []byte("SECRET"), 0o644))
	share, err := Open(0, Options{Source: path, File: true, Readonly: readonly, Volume: asVolumes}, func(byte, []byte) error { return nil })
	check(t, err)
	t.Cleanup(share.Close)
	return &guest{t: t, share: share, pid: 7}, path
}

func TestSingleFile(t *testing.T) {
	g, path := newSingle(t, false)
	reply, err := g.ask(fuse.OpOpen, fuse.RootID, uint32(syscall.O_RDWR), uint32(0))
	check(t, err)
	h := binary.LittleEndian.Uint64(reply)
	reply, err = g.ask(fuse.OpRead, fuse.RootID, h, uint64(0), uint32(100), zeros(20))
	check(t, err)
	if string(reply) != "content" {
		t.Errorf("read %q", reply)
	}
	_, err = g.ask(fuse.OpWrite, fuse.RootID, h, uint64(0), uint32(3), zeros(20), []byte("CON"))
	check(t, err)
	if b, _ := os.ReadFile(path); string(b) != "CONtent" {
		t.Errorf("the host has %q", b)
	}
	// What takes its name on the host is another file.
	check(t, os.WriteFile(path+".new", []byte("new"), 0o644))
	check(t, os.Rename(path+".new", path))
	reply, err = g.ask(fuse.OpRead, fuse.RootID, h, uint64(0), uint32(100), zeros(20))
	check(t, err)
	if string(reply) != "CONtent" {
		t.Errorf("read %q of what was replaced", reply)
	}
}

// Nothing but the file can be reached: there are no names in it.
func TestSingleFileHasNoNames(t *testing.T) {
	for _, readonly := range []bool{false, true} {
		g, path := newSingle(t, readonly)
		for op := range uint32(64) {
			for _, name := range []string{"secret", "..", ".", "file", ""} {
				for _, head := range [][]byte{nil, zeros(4), zeros(8), zeros(16), binary.LittleEndian.AppendUint64(nil, fuse.RootID)} {
					_, _ = g.ask(op, fuse.RootID, head, name, "secret") // what counts is below
				}
			}
		}
		if _, err := g.ask(fuse.OpLookup, fuse.RootID, "secret"); err != syscall.ENOTDIR {
			t.Errorf("lookup: %v", err)
		}
		if _, err := g.ask(fuse.OpOpendir, fuse.RootID, zeros(8)); err != syscall.ENOTDIR {
			t.Errorf("opendir: %v", err)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		check(t, err)
		if len(entries) != 2 {
			t.Errorf("beside it there are %v", entries)
		}
		if b, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "secret")); string(b) != "SECRET" {
			t.Errorf("the file beside it holds %q", b)
		}
	}
}

func TestSingleFileThatIsNone(t *testing.T) {
	top := t.TempDir()
	check(t, os.Mkdir(filepath.Join(top, "dir"), 0o755))
	check(t, syscall.Mkfifo(filepath.Join(top, "fifo"), 0o644))
	check(t, os.WriteFile(filepath.Join(top, "file"), nil, 0o644))
	check(t, os.Symlink("file", filepath.Join(top, "link")))
	for _, name := range []string{"dir", "fifo", "link", "none"} {
		share, err := Open(0, Options{Source: filepath.Join(top, name), File: true}, func(byte, []byte) error { return nil })
		if err == nil {
			share.Close()
			t.Errorf("%s is served", name)
		}
	}
}
