package fileserver

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// A VM that was paused makes the call of an event that the host has given up: what the host
// has under that name by now must stay.
func TestLateCalls(t *testing.T) {
	g := newGuest(t, Options{})
	g.share.raiser.Store(g.pid)
	root := g.share.nodes.byID[fuse.RootID]
	gone := sharewire.Event{What: sharewire.Deleted, Dir: fuse.RootID, Name: "file", Type: syscall.S_IFREG >> 12}
	g.share.raised.Store(&raising{Event: gone, dir: root})
	if _, err := g.ask(fuse.OpUnlink, fuse.RootID, "file"); err != nil {
		t.Errorf("in time: %v", err)
	}
	g.share.raised.Store(nil)
	for what, ask := range map[string]func() error{
		"unlink": func() error { _, err := g.ask(fuse.OpUnlink, fuse.RootID, "file"); return err },
		"rmdir":  func() error { _, err := g.ask(fuse.OpRmdir, fuse.RootID, "sub"); return err },
		"mkdir": func() error {
			_, err := g.ask(fuse.OpMkdir, fuse.RootID, uint32(0o700), uint32(0), "new")
			return err
		},
	} {
		if err := ask(); err != syscall.ECANCELED {
			t.Errorf("%s, late: %v", what, err)
		}
	}
	names, err := os.ReadDir(g.inside)
	check(t, err)
	if len(names) != 2 {
		t.Errorf("there is now %v", names)
	}
	b, err := os.ReadFile(filepath.Join(g.inside, "file"))
	if err != nil || string(b) != "content" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
