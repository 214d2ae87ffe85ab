package files

import (
	"archive/tar"
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// mountBelow mounts a file system in memory for this thread alone, which ends with the test. It returns what takes it away.
func mountBelow(t *testing.T, place, options string) func() {
	t.Helper()
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		t.Skip(err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		t.Skip(err)
	}
	if err := os.MkdirAll(place, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", place, "tmpfs", 0, options); err != nil {
		t.Skip(err)
	}
	return func() { _ = syscall.Unmount(place, syscall.MNT_DETACH) } // gone with the namespace anyway
}

// A volume below the target is a file system of its own, into which nothing can be renamed.
func TestUntarIntoAFileSystemBelow(t *testing.T) {
	to := t.TempDir()
	below := to + "/work/volume"
	defer mountBelow(t, below, "size=1m,nr_inodes=20")()
	if err := os.WriteFile(below+"/old", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := entries(t,
		tar.Header{Name: "beside", Typeflag: tar.TypeReg},
		tar.Header{Name: "work/volume/", Typeflag: tar.TypeDir},
		tar.Header{Name: "work/volume/old", Typeflag: tar.TypeReg},
		tar.Header{Name: "work/volume/d/", Typeflag: tar.TypeDir},
		tar.Header{Name: "work/volume/d/file", Typeflag: tar.TypeReg},
		tar.Header{Name: "work/volume/d/same", Typeflag: tar.TypeLink, Linkname: "work/volume/d/file"},
		tar.Header{Name: "work/volume/link", Typeflag: tar.TypeSymlink, Linkname: "d/file"},
	)
	if err := Untar(UntarOptions{Path: to}, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/beside", "/work/volume/old", "/work/volume/d/file", "/work/volume/link"} {
		if b, err := os.ReadFile(to + name); err != nil || string(b) != "data" {
			t.Fatal(name, string(b), err)
		}
	}
	one, err := os.Stat(below + "/d/file")
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.Stat(below + "/d/same"); err != nil || !os.SameFile(one, two) {
		t.Fatal("one file with two names has become two", err)
	}
	if fi, err := os.Stat(below + "/d"); err != nil || fi.Mode().Perm() != 0o755 {
		t.Fatal(fi, err)
	}
	// A file system that is full: what did not fit leaves nothing behind.
	full := []tar.Header{{Name: "work/volume/many/", Typeflag: tar.TypeDir}}
	for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		full = append(full, tar.Header{Name: "work/volume/many/" + name, Typeflag: tar.TypeReg})
	}
	if err := Untar(UntarOptions{Path: to}, bytes.NewReader(entries(t, full...))); err == nil || !strings.Contains(err.Error(), "could not be put into place") {
		t.Fatal(err)
	}
	for _, dir := range []string{to, below} {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if strings.HasPrefix(n.Name(), ".vmsan") || n.Name() == "many" {
				t.Fatal("left behind:", n.Name())
			}
		}
	}
}

// Whoever may write into a volume must not find anything there, before it has its name, that could be exchanged for a link.
func TestUntarIntoAFileSystemBelowIsNobodyElses(t *testing.T) {
	to := t.TempDir()
	below := to + "/volume"
	defer mountBelow(t, below, "")()
	seen, err := os.Open(below)
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	var list []tar.Header
	for n := range 2000 {
		list = append(list, tar.Header{Name: "volume/" + strconv.Itoa(n), Typeflag: tar.TypeReg})
	}
	done, open := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(open)
		for {
			select {
			case <-done:
				return
			default:
			}
			_, _ = seen.Seek(0, 0) // a directory
			names, _ := seen.Readdirnames(-1)
			for _, n := range names {
				if !strings.HasPrefix(n, ".vmsan") {
					continue
				}
				// One that has gone is as good.
				if fi, err := os.Lstat(at(seen, n)); err == nil && fi.Mode() != os.ModeDir|0o700 {
					open <- n + " " + fi.Mode().String()
					return
				}
			}
		}
	}()
	err = Untar(UntarOptions{Path: to}, bytes.NewReader(entries(t, list...)))
	close(done)
	if what, was := <-open; was || err != nil {
		t.Fatal(what, err)
	}
}
