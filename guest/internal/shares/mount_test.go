package shares

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmsan/guest/internal/fileserver"
	"vmsan/guest/internal/sharewire"
	"vmsan/guest/internal/wire"
)

// These mount in this machine's own tree, by its kernel.

// needFUSE skips where that cannot be done.
func needFUSE(t *testing.T) {
	t.Helper()
	one, err := newMount(0, Share{}, newLink(nil))
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("needs root and /dev/fuse: %v", err)
	}
	defer syscall.Close(one.fd)
	if err := syscall.Mount("none", t.TempDir(), "tmpfs", 0, "bad=option"); err == syscall.EPERM {
		t.Skip("nothing can be mounted here")
	}
}

// visit connects a manager with a file server's end.
func visit(t *testing.T, m *manager, serve func(*sharewire.Conn)) (lost func()) {
	t.Helper()
	near, far := net.Pipe()
	taker := m.open(near)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := near.Read(b)
			if err != nil {
				taker.Lost()
				return
			}
			taker.Take(b[:n])
		}
	}()
	over := make(chan struct{})
	go func() { serve(sharewire.NewConn(far)); close(over) }()
	lost = func() { _ = near.Close() }
	t.Cleanup(func() { lost(); <-over })
	return lost
}

// mute is a file server that begins and answers nothing; asked gets each request.
func mute(asked chan<- sharewire.Frame) func(*sharewire.Conn) {
	return func(c *sharewire.Conn) {
		if c.Write(0, sharewire.Begin, make([]byte, 8)) != nil {
			return
		}
		for {
			f, err := c.Read(func(size int) []byte { return make([]byte, size) })
			if err != nil {
				return
			}
			if f.Kind == sharewire.Message {
				asked <- f
			}
		}
	}
}

// places gives the sources and places of shares.
func places(t *testing.T, count int) ([]fileserver.Options, []Share) {
	t.Helper()
	dir := t.TempDir()
	var options []fileserver.Options
	var list []Share
	for i := range count {
		name := string(rune('a' + i))
		source, target := filepath.Join(dir, "from", name), filepath.Join(dir, "to", name)
		if err := errors.Join(os.MkdirAll(source, 0o755), os.WriteFile(filepath.Join(source, "file"), []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
		options = append(options, fileserver.Options{Source: source, Readonly: i%2 == 1})
		list = append(list, Share{Target: target, ReadOnly: i%2 == 1})
		t.Cleanup(func() {
			for syscall.Unmount(target, syscall.MNT_DETACH|syscall.MNT_FORCE) == nil {
			}
		})
	}
	return options, list
}

// layersAt counts what is mounted at a place.
func layersAt(t *testing.T, place string) int {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(table), " "+place+" fuse ")
}

// content reads a small file without package os, which would show it to the poller that the mounts are served by.
func content(path string) (string, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	b := make([]byte, 100)
	n, err := syscall.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

// within fails the test instead of hanging.
func within(t *testing.T, what string, outcome <-chan error) error {
	t.Helper()
	select {
	case err := <-outcome:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
		return nil
	}
}

// A file server that goes away before it has answered the mount's first request ends that mount, and the
// next one serves all.
func TestServerLostWhileMounting(t *testing.T) {
	needFUSE(t)
	options, list := places(t, 3)
	m := newManager()
	configured := make(chan error, 1)
	go func() { configured <- m.configure(list) }()
	asked := make(chan sharewire.Frame, 16)
	lost := visit(t, m, mute(asked))
	<-asked
	lost()
	visit(t, m, func(c *sharewire.Conn) {
		_ = fileserver.Serve(c, options, filepath.Join(t.TempDir(), "state"))
	})
	if err := within(t, "mounting", configured); err != nil {
		t.Fatal(err)
	}
	for i, s := range list {
		if n := layersAt(t, s.Target); n != 1+i%2 {
			t.Errorf("%d mounts at %s", n, s.Target)
		}
		if got, err := content(filepath.Join(s.Target, "file")); got != string(rune('a'+i)) {
			t.Errorf("%s: %q, %v", s.Target, got, err)
		}
	}
	closed := make(chan error, 1)
	go func() { m.close(0); closed <- nil }()
	_ = within(t, "unmounting", closed)
	for _, s := range list {
		if n := layersAt(t, s.Target); n != 0 {
			t.Errorf("%d mounts at %s", n, s.Target)
		}
	}
}

// One that is there and answers nothing is waited for as long as the limit says.
func TestServerMuteWhileMounting(t *testing.T) {
	needFUSE(t)
	_, list := places(t, 2)
	m := newManager()
	m.answerWait = 200 * time.Millisecond
	visit(t, m, mute(make(chan sharewire.Frame, 16)))
	configured := make(chan error, 1)
	go func() { configured <- m.configure(list) }()
	var info *wire.ErrorInfo
	err := within(t, "mounting", configured)
	if !errors.As(err, &info) || info.Code != wire.CodeConfig || !strings.Contains(info.Message, "has not answered within 200ms") ||
		!strings.Contains(info.Message, list[0].Target) {
		t.Fatalf("%v", err)
	}
	for _, s := range list {
		if n := layersAt(t, s.Target); n != 0 {
			t.Errorf("%d mounts at %s", n, s.Target)
		}
	}
}
