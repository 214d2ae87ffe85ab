package fileserver

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// guest is a kernel that sends whatever it likes.
type guest struct {
	t       *testing.T
	share   *Share
	inside  string
	outside string
	pid     uint32
}

// asVolumes: what is served are volumes.
var asVolumes bool

// newGuest shares a directory that has a secret beside it.
func newGuest(t *testing.T, o Options) *guest {
	t.Helper()
	top := t.TempDir()
	g := &guest{t: t, inside: filepath.Join(top, "inside"), outside: filepath.Join(top, "outside"), pid: 7}
	for _, dir := range []string{g.inside, g.outside, filepath.Join(g.inside, "sub"), filepath.Join(g.outside, "dir")} {
		check(t, os.Mkdir(dir, 0o755))
	}
	check(t, os.WriteFile(filepath.Join(g.outside, "secret"), []byte("SECRET"), 0o644))
	check(t, os.WriteFile(filepath.Join(g.inside, "file"), []byte("content"), 0o644))
	o.Source, o.Volume = g.inside, o.Volume || asVolumes
	share, err := Open(0, o, func(byte, []byte) error { return nil })
	check(t, err)
	t.Cleanup(share.Close)
	g.share = share
	return g
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask sends a request; the words of its body are numbers and texts.
func (g *guest) ask(op uint32, node uint64, words ...any) ([]byte, error) {
	var body []byte
	for _, w := range words {
		switch x := w.(type) {
		case uint32:
			body = binary.LittleEndian.AppendUint32(body, x)
		case uint64:
			body = binary.LittleEndian.AppendUint64(body, x)
		case string:
			body = append(append(body, x...), 0)
		case []byte:
			body = append(body, x...)
		}
	}
	r := fuse.Request{Opcode: op, Node: node, PID: g.pid, Body: body}
	reply, err, _ := g.share.answer(&r, make([]byte, 0, 1<<20))
	return reply, err
}

func zeros(n int) []byte { return make([]byte, n) }

// find looks a name up that must be there.
func (g *guest) find(node uint64, name string) uint64 {
	g.t.Helper()
	reply, err := g.ask(fuse.OpLookup, node, name)
	check(g.t, err)
	return binary.LittleEndian.Uint64(reply)
}

// untouched fails when anything beside the share has changed.
func (g *guest) untouched(what string) {
	g.t.Helper()
	var seen []string
	check(g.t, filepath.Walk(filepath.Dir(g.inside), func(path string, fi os.FileInfo, err error) error {
		if err == nil && path != g.inside && strings.HasPrefix(path, g.inside) {
			return nil
		}
		seen = append(seen, strings.TrimPrefix(path, filepath.Dir(g.inside))+" "+fi.Mode().String())
		return err
	}))
	const want = " drwxr-xr-x /inside drwxr-xr-x /outside drwxr-xr-x /outside/dir drwxr-xr-x /outside/secret -rw-r--r--"
	if got := strings.Join(seen, " "); got != want {
		g.t.Fatalf("%s: beside the share there is now %s", what, got)
	}
	b, err := os.ReadFile(filepath.Join(g.outside, "secret"))
	if err != nil || string(b) != "SECRET" {
		g.t.Fatalf("%s: the secret is now %q", what, b)
	}
}

// open: what OPEN gives, as a handle.
func (g *guest) open(node uint64, flags uint32) (uint64, error) {
	reply, err := g.ask(fuse.OpOpen, node, flags, uint32(0))
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(reply), nil
}

func (g *guest) read(handle uint64) (string, error) {
	b, err := g.ask(fuse.OpRead, fuse.RootID, handle, uint64(0), uint32(100), uint32(0), uint64(0), uint64(0))
	return string(b), err
}

// Names that are more than one step, by every request that takes one.
func TestNames(t *testing.T) {
	g := newGuest(t, Options{})
	sub := g.find(fuse.RootID, "sub")
	file := g.find(fuse.RootID, "file")
	requests := map[string]func(node uint64, name string) error{
		"lookup": func(n uint64, name string) error { _, err := g.ask(fuse.OpLookup, n, name); return err },
		"mknod": func(n uint64, name string) error {
			_, err := g.ask(fuse.OpMknod, n, uint32(0o100644), zeros(12), name)
			return err
		},
		"mkdir": func(n uint64, name string) error {
			_, err := g.ask(fuse.OpMkdir, n, uint32(0o755), uint32(0), name)
			return err
		},
		"symlink": func(n uint64, name string) error { _, err := g.ask(fuse.OpSymlink, n, name, "x"); return err },
		"link":    func(n uint64, name string) error { _, err := g.ask(fuse.OpLink, n, file, name); return err },
		"create": func(n uint64, name string) error {
			_, err := g.ask(fuse.OpCreate, n, uint32(syscall.O_RDWR|syscall.O_CREAT), uint32(0o644), uint32(0), uint32(0), name)
			return err
		},
		"unlink":      func(n uint64, name string) error { _, err := g.ask(fuse.OpUnlink, n, name); return err },
		"rmdir":       func(n uint64, name string) error { _, err := g.ask(fuse.OpRmdir, n, name); return err },
		"rename from": func(n uint64, name string) error { _, err := g.ask(fuse.OpRename, n, n, name, "here"); return err },
		"rename to": func(n uint64, name string) error {
			_, err := g.ask(fuse.OpRename, fuse.RootID, n, "file", name)
			return err
		},
		"exchange": func(n uint64, name string) error {
			_, err := g.ask(fuse.OpRename2, fuse.RootID, n, uint32(2), uint32(0), "file", name)
			return err
		},
	}
	attempts := 0
	for what, request := range requests {
		for _, name := range []string{
			"..", ".", "", "/", "../outside/secret", "../outside/dir", "../outside/new", "../../outside/secret", "./../outside/secret",
			"../../../../../../../../etc/passwd", g.outside + "/secret", g.outside + "/dir", "/etc/passwd", "/proc/self/root",
			"x/../../outside/secret", "sub/../../outside/new", strings.Repeat("../", 80) + "etc/passwd", strings.Repeat("n", 256),
		} {
			for _, node := range []uint64{fuse.RootID, sub} {
				attempts++
				if err := request(node, name); err == nil {
					t.Errorf("%s of %q is carried out", what, name)
				}
			}
		}
	}
	g.untouched("names")
	t.Logf("%d attempts", attempts)
}

// Links that lead out are objects like any other: nothing is done to what they name.
func TestLinks(t *testing.T) {
	g := newGuest(t, Options{})
	targets := []string{
		g.outside, g.outside + "/secret", g.outside + "/dir", "../outside", "../outside/secret", "..", "/", "/etc/passwd",
		"/proc/self/root" + g.outside, "/proc/self/cwd", "/proc/self/fd/1", "/proc/1/root", "loop",
	}
	for i, target := range targets {
		name := "l" + string(rune('a'+i))
		_, err := g.ask(fuse.OpSymlink, fuse.RootID, name, target)
		check(t, err)
		n := g.find(fuse.RootID, name)
		for what, refused := range map[string]func() error{
			"open":    func() error { _, err := g.open(n, syscall.O_RDONLY); return err },
			"write":   func() error { _, err := g.open(n, syscall.O_WRONLY|syscall.O_TRUNC); return err },
			"opendir": func() error { _, err := g.ask(fuse.OpOpendir, n, zeros(8)); return err },
			"lookup":  func() error { _, err := g.ask(fuse.OpLookup, n, "secret"); return err },
			"mkdir":   func() error { _, err := g.ask(fuse.OpMkdir, n, uint32(0o755), uint32(0), "new"); return err },
			"unlink":  func() error { _, err := g.ask(fuse.OpUnlink, n, "secret"); return err },
			"rename":  func() error { _, err := g.ask(fuse.OpRename, fuse.RootID, n, "file", "stolen"); return err },
			"truncate": func() error {
				_, err := g.ask(fuse.OpSetattr, n, uint32(fuse.AttrSize), uint32(0), zeros(80))
				return err
			},
			"create over": func() error {
				_, err := g.ask(fuse.OpCreate, fuse.RootID, uint32(syscall.O_RDWR|syscall.O_CREAT|syscall.O_TRUNC), uint32(0o644), uint32(0), uint32(0), name)
				return err
			},
		} {
			if err := refused(); err == nil {
				t.Errorf("%s through a link to %s is carried out", what, target)
			}
		}
		// These may be done, to the link itself.
		_, _ = g.ask(fuse.OpSetattr, n, uint32(fuse.AttrMode), uint32(0), zeros(60), uint32(0o777), zeros(16))
		_, _ = g.ask(fuse.OpSetattr, n, uint32(fuse.AttrMtime), uint32(0), zeros(80))
		_, _ = g.ask(fuse.OpSetxattr, n, uint32(1), uint32(0), "user.x", []byte("y"))
		_, _ = g.ask(fuse.OpLink, fuse.RootID, n, name+"2")
		g.untouched("link to " + target)
	}
}

// A directory of the share is exchanged for a link out and back, while the guest uses it.
func TestRaces(t *testing.T) {
	g := newGuest(t, Options{})
	check(t, os.WriteFile(filepath.Join(g.inside, "sub", "secret"), []byte("inside"), 0o644))
	check(t, os.Symlink(g.outside, filepath.Join(g.inside, "away")))
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			if err := renameNames(atFdcwd, filepath.Join(g.inside, "sub"), atFdcwd, filepath.Join(g.inside, "away"), renameExchange); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	entered := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		reply, err := g.ask(fuse.OpLookup, fuse.RootID, "sub")
		if err != nil {
			continue
		}
		dir := binary.LittleEndian.Uint64(reply)
		_, _ = g.ask(fuse.OpMkdir, dir, uint32(0o755), uint32(0), "made")
		_, _ = g.ask(fuse.OpRmdir, dir, "made")
		reply, err = g.ask(fuse.OpLookup, dir, "secret")
		if err == nil && binary.LittleEndian.Uint64(reply) != 0 {
			file := binary.LittleEndian.Uint64(reply)
			if h, err := g.open(file, syscall.O_RDWR); err == nil {
				got, _ := g.read(h)
				if got != "inside" {
					t.Fatalf("the guest has read %q", got)
				}
				entered++
				_, _ = g.ask(fuse.OpRelease, file, h, zeros(16))
			}
			_, _ = g.ask(fuse.OpForget, file, uint64(1))
		}
		_, _ = g.ask(fuse.OpForget, dir, uint64(1))
	}
	over.Store(true)
	<-done
	g.untouched("races")
	if entered == 0 {
		t.Error("the directory was never met in its place: nothing was tried")
	}
}

// What a file or directory stands for never becomes something else's.
func TestReplaced(t *testing.T) {
	g := newGuest(t, Options{})
	file := g.find(fuse.RootID, "file")
	path := filepath.Join(g.inside, "file")
	for what, replace := range map[string]func() error{
		"a link":   func() error { return os.Symlink(g.outside+"/secret", path) },
		"a pipe":   func() error { return syscall.Mkfifo(path, 0o644) },
		"a folder": func() error { return os.Mkdir(path, 0o755) },
	} {
		check(t, os.Remove(path))
		check(t, replace())
		// ESTALE, unless the file system gave the new one the old one's inode: then its kind is refused.
		if _, err := g.open(file, syscall.O_RDWR); err == nil {
			t.Errorf("a file that is now %s is opened", what)
		}
		if _, err := g.ask(fuse.OpSetattr, file, uint32(fuse.AttrSize), uint32(0), zeros(80)); err == nil {
			t.Errorf("a file that is now %s is cut", what)
		}
	}
	g.untouched("replacing")
}

// Devices, pipes and sockets are never opened, and no device is made.
func TestSpecial(t *testing.T) {
	g := newGuest(t, Options{})
	check(t, syscall.Mkfifo(filepath.Join(g.inside, "pipe"), 0o666))
	for _, mode := range []uint32{syscall.S_IFCHR, syscall.S_IFBLK, syscall.S_IFDIR, syscall.S_IFLNK, 0} {
		if _, err := g.ask(fuse.OpMknod, fuse.RootID, mode|0o666, uint32(0x103), zeros(8), "made"); err != syscall.EPERM {
			t.Errorf("mknod %o: %v", mode, err)
		}
	}
	for _, flags := range []uint32{syscall.O_RDONLY, syscall.O_WRONLY, syscall.O_RDWR} {
		if _, err := g.open(g.find(fuse.RootID, "pipe"), flags); err != syscall.EACCES {
			t.Errorf("a pipe is opened: %v", err)
		}
	}
	if syscall.Mknod(filepath.Join(g.inside, "null"), syscall.S_IFCHR|0o666, 0x103) == nil {
		if _, err := g.open(g.find(fuse.RootID, "null"), syscall.O_RDWR); err != syscall.EACCES {
			t.Errorf("a device is opened: %v", err)
		}
	}
	for _, name := range []string{"security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "security.selinux", "", "user"} {
		if _, err := g.ask(fuse.OpSetxattr, g.find(fuse.RootID, "file"), uint32(1), uint32(0), name, []byte("y")); err == nil {
			t.Errorf("the attribute %q is set", name)
		}
	}
}

// Numbers and messages that were never given out.
func TestForged(t *testing.T) {
	g := newGuest(t, Options{})
	file := g.find(fuse.RootID, "file")
	for op := uint32(0); op < 64; op++ {
		for _, node := range []uint64{0, fuse.RootID, file, file + 1, 1 << 40, ^uint64(0)} {
			for _, body := range [][]byte{nil, zeros(1), zeros(8), zeros(200), []byte(strings.Repeat("\xff", 200)), []byte(strings.Repeat("/", 200) + "\x00")} {
				if op != fuse.OpForget && op != fuse.OpBatchForget {
					_, _ = g.ask(op, node, body)
				}
			}
		}
	}
	// What was sense among it was carried out, within the share.
	check(t, os.Chmod(g.inside, 0o755))
	check(t, os.WriteFile(filepath.Join(g.inside, "file"), []byte("content"), 0o644))
	g.untouched("nonsense")
	handle, err := g.open(file, syscall.O_RDONLY)
	check(t, err)
	if _, err := g.ask(fuse.OpWrite, file, handle, uint64(0), uint32(7), uint32(0), uint64(0), uint64(0), []byte("changed")); err != syscall.EBADF {
		t.Errorf("a handle for reading is written to: %v", err)
	}
	for _, size := range []uint32{sharewire.MaxData + 1, 1 << 31, ^uint32(0)} {
		if _, err := g.ask(fuse.OpRead, file, handle, uint64(0), size, uint32(0), uint64(0), uint64(0)); err != syscall.EINVAL {
			t.Errorf("a read of %d bytes: %v", size, err)
		}
	}
	// Forgotten twice and more, then used: nothing of it stands for anything any more.
	_, _ = g.ask(fuse.OpForget, file, ^uint64(0))
	_, _ = g.ask(fuse.OpForget, file, uint64(1))
	_, _ = g.ask(fuse.OpForget, fuse.RootID, ^uint64(0))
	if _, err := g.ask(fuse.OpGetattr, file, zeros(16)); err != syscall.ESTALE {
		t.Errorf("a forgotten node: %v", err)
	}
	if got, err := g.read(handle); err != nil || got != "content" {
		t.Errorf("its open handle: %q %v", got, err)
	}
	if g.find(fuse.RootID, "sub") == 0 {
		t.Error("the root is gone")
	}
	g.untouched("forgery")
}

// A share that is only read stays so, also for whoever pretends to be the agent's thread.
func TestReadonly(t *testing.T) {
	g := newGuest(t, Options{Readonly: true})
	file, sub := g.find(fuse.RootID, "file"), g.find(fuse.RootID, "sub")
	g.share.raiser.Store(g.pid)
	for _, what := range []byte{0, sharewire.Modified, sharewire.Created, sharewire.Deleted, sharewire.Closed, sharewire.Attributes} {
		n, err := g.share.nodes.get(fuse.RootID)
		check(t, err)
		g.share.raised.Store(&raising{Event: sharewire.Event{What: what, Dir: fuse.RootID, Name: "other", Type: 8}, dir: n})
		for op := uint32(0); op < 64; op++ {
			for _, body := range []string{"file\x00new\x00", "sub\x00", strings.Repeat("\x00", 8) + "file\x00", strings.Repeat("\x00", 16) + "new\x00"} {
				if op != fuse.OpForget && op != fuse.OpBatchForget {
					_, _ = g.ask(op, fuse.RootID, []byte(body))
				}
			}
		}
		for _, err := range []error{
			func() error { _, err := g.ask(fuse.OpUnlink, fuse.RootID, "file"); return err }(),
			func() error { _, err := g.ask(fuse.OpRename, fuse.RootID, sub, "file", "x"); return err }(),
			func() error { _, err := g.ask(fuse.OpMkdir, sub, uint32(0o755), uint32(0), "x"); return err }(),
			func() error {
				_, err := g.ask(fuse.OpSetxattr, file, uint32(1), uint32(0), "user.x", []byte("y"))
				return err
			}(),
		} {
			if err != syscall.EROFS {
				t.Errorf("with event %d: %v", what, err)
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(g.inside, "file"))
	entries, _ := os.ReadDir(g.inside)
	if err != nil || string(b) != "content" || len(entries) != 2 {
		t.Errorf("it has changed: %q %v %v", b, err, entries)
	}
}

// What is hidden is not there.
func TestHidden(t *testing.T) {
	g := newGuest(t, Options{})
	own := filepath.Join(g.inside, "own")
	check(t, os.MkdirAll(filepath.Join(own, "run"), 0o755))
	other, err := Open(0, Options{Source: g.inside, Hidden: []string{own}}, g.share.send)
	check(t, err)
	t.Cleanup(other.Close)
	g.share = other
	if reply, err := g.ask(fuse.OpLookup, fuse.RootID, "own"); err != nil || binary.LittleEndian.Uint64(reply) != 0 {
		t.Errorf("it is found: %v", err)
	}
	reply, err := g.ask(fuse.OpOpendir, fuse.RootID, zeros(8))
	check(t, err)
	for _, op := range []uint32{fuse.OpReaddir, fuse.OpReaddirplus} {
		list, err := g.ask(op, fuse.RootID, binary.LittleEndian.Uint64(reply), uint64(0), uint32(4096), zeros(20))
		check(t, err)
		if strings.Contains(string(list), "own") || !strings.Contains(string(list), "file") {
			t.Errorf("it is listed: %q", list)
		}
	}
	for what, err := range map[string]error{
		"rename": func() error {
			_, err := g.ask(fuse.OpRename, fuse.RootID, uint64(fuse.RootID), "own", "mine")
			return err
		}(),
		"over": func() error {
			_, err := g.ask(fuse.OpRename, fuse.RootID, uint64(fuse.RootID), "sub", "own")
			return err
		}(),
		"rmdir": func() error { _, err := g.ask(fuse.OpRmdir, fuse.RootID, "own"); return err }(),
	} {
		if err == nil {
			t.Errorf("%s is carried out", what)
		}
	}
}
