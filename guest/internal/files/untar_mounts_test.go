package files

import (
	"archive/tar"
	"bytes"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A volume below the target is a file system of its own, into which nothing can be renamed.
func TestUntarIntoAFileSystemBelow(t *testing.T) {
	// This thread, which ends with the test, mounts for itself alone.
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		t.Skip(err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		t.Skip(err)
	}
	to := t.TempDir()
	below := to + "/work/volume"
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", below, "tmpfs", 0, "size=1m,nr_inodes=20"); err != nil {
		t.Skip(err)
	}
	defer func() { _ = syscall.Unmount(below, syscall.MNT_DETACH) }() // gone with the namespace anyway
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
