package netcfg

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"vmsan/guest/internal/wire"
)

// mountsApart gives this thread, which ends with the test, mounts for itself alone.
func mountsApart(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		t.Skip(err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		t.Skip(err)
	}
}

// ownMounts is the same with a /dev to have memory below, and a root of memory, whose path it returns.
func ownMounts(t *testing.T) string {
	t.Helper()
	mountsApart(t)
	root := t.TempDir()
	for _, place := range []string{root, "/dev"} {
		if err := syscall.Mount("tmpfs", place, "tmpfs", 0, "mode=755"); err != nil {
			t.Skip(err)
		}
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) }) // gone with the thread anyway
	return root
}

func archiveOf(t *testing.T, files map[string]string, mode int64) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func content(t *testing.T, path, text string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != text {
		t.Fatalf("%s: %q, %v", path, b, err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A volume is mounted once, read-only, over what is at its place, and exchanged from then on wherever its path leads by then.
func TestFillExchanges(t *testing.T) {
	root := ownMounts(t)
	c := &Config{System: true}
	must(t, os.MkdirAll(root+"/home/cfg", 0o755), os.WriteFile(root+"/home/cfg/image", []byte("its own"), 0o644))
	f := Filling{Place: root + "/home/cfg", Shape: wire.FillVolume, Mode: 0o2755, GID: 2000}
	must(t, c.Fill(f, archiveOf(t, map[string]string{"a": "1", "sub/b": "2", "gone": "3"}, 0o440)))
	content(t, root+"/home/cfg/a", "1")
	content(t, root+"/home/cfg/sub/b", "2")
	if _, err := os.Lstat(root + "/home/cfg/image"); err == nil {
		t.Fatal("the image's is seen")
	}
	if err := os.WriteFile(root+"/home/cfg/new", nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(root+"/home/cfg/..data", &st))
	if st.Gid != 2000 || st.Mode&0o7777 != 0o2755 {
		t.Fatal(st.Gid, st.Mode)
	}
	open, err := os.Open(root + "/home/cfg")
	must(t, err)
	defer open.Close()
	// Whose the directory above is moves the place away and puts a link there.
	must(t, os.Mkdir(root+"/etc", 0o755), os.WriteFile(root+"/etc/a", []byte("kept"), 0o600))
	must(t, os.Mkdir(root+"/other", 0o755), os.Rename(root+"/home", root+"/other/home"), os.Symlink(root, root+"/home"), os.Symlink("etc", root+"/cfg"))
	must(t, c.Fill(f, archiveOf(t, map[string]string{"a": "one"}, 0o440)))
	content(t, root+"/etc/a", "kept")
	content(t, root+"/other/home/cfg/a", "one")
	names, err := open.Readdirnames(-1)
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	// What is no archive leaves everything as it is.
	if err := c.Fill(f, strings.NewReader(strings.Repeat("x", 1024))); err == nil {
		t.Fatal("taken")
	}
	content(t, root+"/other/home/cfg/a", "one")
}

// A file is mounted by itself, and stays the same one when it is filled again.
func TestFillFile(t *testing.T) {
	root := ownMounts(t)
	c := &Config{System: true}
	f := Filling{Place: root + "/var/said", Shape: wire.FillFile, Writable: true}
	must(t, c.Fill(f, archiveOf(t, map[string]string{"x": ""}, 0o666)))
	must(t, os.WriteFile(f.Place, []byte("the last words"), 0))
	if err := os.Remove(f.Place); !errors.Is(err, syscall.EBUSY) {
		t.Fatal(err)
	}
	must(t, c.Fill(f, archiveOf(t, map[string]string{"x": ""}, 0o666)))
	content(t, f.Place, "")
	one := Filling{Place: root + "/etc/app.conf", Shape: wire.FillFile}
	must(t, c.Fill(one, archiveOf(t, map[string]string{"x": "a=1"}, 0o444)))
	content(t, one.Place, "a=1")
	if err := os.WriteFile(one.Place, nil, 0); !errors.Is(err, syscall.EROFS) {
		t.Fatal(err)
	}
	must(t, c.Fill(one, archiveOf(t, map[string]string{"x": "1"}, 0o444)))
	content(t, one.Place, "1")
	if err := c.Fill(one, archiveOf(t, map[string]string{"x/y": "2"}, 0o444)); err == nil {
		t.Fatal("taken")
	}
	tree := Filling{Place: root + "/part", Shape: wire.FillTree, Mode: 0o755}
	must(t, c.Fill(tree, archiveOf(t, map[string]string{"a": "1", "b": "2"}, 0o444)))
	must(t, c.Fill(tree, archiveOf(t, map[string]string{"a": "3"}, 0o444)))
	content(t, root+"/part/a", "3")
	if _, err := os.Lstat(root + "/part/b"); err == nil {
		t.Fatal("what is gone is there")
	}
}

// Links that root alone can have put there lead to a place, as /var/run of images; others do not, and none leads to the kernel's.
func TestPlacesBehindLinks(t *testing.T) {
	root := ownMounts(t)
	c := &Config{System: true}
	must(t, os.MkdirAll(root+"/run", 0o755), os.Mkdir(root+"/var", 0o755), os.Symlink("../run", root+"/var/run"))
	f := Filling{Place: root + "/var/run/secrets/x", Shape: wire.FillVolume, Mode: 0o755}
	must(t, c.Fill(f, archiveOf(t, map[string]string{"token": "t"}, 0o644)))
	content(t, root+"/run/secrets/x/token", "t")
	must(t, os.MkdirAll(root+"/home/me", 0o755), os.Chown(root+"/home/me", 1000, 1000))
	must(t, os.Symlink(root+"/etc", root+"/home/me/cfg"), os.Lchown(root+"/home/me/cfg", 1000, 1000), os.Mkdir(root+"/etc", 0o755))
	// One of root's in a directory of somebody else's may have been put there by a hard link or a move.
	must(t, os.Symlink(root+"/etc", root+"/home/me/roots"), os.Mkdir(root+"/all", 0o777), os.Chmod(root+"/all", 0o777))
	must(t, os.Symlink(root+"/etc", root+"/all/link"), os.Symlink("loop", root+"/loop"))
	must(t, os.Symlink("/proc/sys", root+"/kernel"), os.Symlink("/dev", root+"/devices"), syscall.Mkfifo(root+"/fifo", 0o666))
	for _, place := range []string{"/home/me/cfg", "/home/me/cfg/below", "/home/me/roots", "/all/link/x", "/loop", "/kernel/a", "/devices", "/devices/x", "/fifo", "/etc/../proc"} {
		// Cleaned of what is no link, the last one is a directory of the root's own.
		bad := Filling{Place: root + place, Shape: wire.FillVolume, Mode: 0o755}
		if err := c.Fill(bad, archiveOf(t, map[string]string{"a": "1"}, 0o644)); (err == nil) != (place == "/etc/../proc") {
			t.Fatal(place, err)
		}
	}
	file := Filling{Place: root + "/fifo", Shape: wire.FillFile}
	if err := c.Fill(file, archiveOf(t, map[string]string{"a": "1"}, 0o644)); err == nil {
		t.Fatal("mounted over a fifo")
	}
	names, err := os.ReadDir(root + "/etc")
	if err != nil || len(names) != 0 {
		t.Fatal(names, err)
	}
	last := Filling{Place: "/dev/termination-log", Shape: wire.FillFile, Writable: true}
	must(t, c.Fill(last, archiveOf(t, map[string]string{"a": ""}, 0o666)))
	for _, place := range []string{"/proc/version", "/sys/x", "/"} {
		if err := c.Fill(Filling{Place: place, Shape: wire.FillFile}, archiveOf(t, map[string]string{"a": ""}, 0o666)); err == nil {
			t.Fatal(place)
		}
	}
	// What could not be shown is, once it can.
	must(t, os.Remove(root+"/home/me/cfg"))
	must(t, c.Fill(Filling{Place: root + "/home/me/cfg", Shape: wire.FillVolume, Mode: 0o755}, archiveOf(t, map[string]string{"a": "2"}, 0o644)))
	content(t, root+"/home/me/cfg/a", "2")
}
