package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmsan/guest/internal/files"
)

// What was packed is unpacked as it was, and what no volume may have is left out.
func TestTree(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "data")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(dir, 0o750))
	check(os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o444))
	check(os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "again")))
	check(os.Symlink("/nowhere", filepath.Join(dir, "link")))
	check(os.Mkdir(filepath.Join(dir, "sub"), 0o777))
	check(syscall.Chmod(filepath.Join(dir, "sub"), 0o2551))
	sparse, err := os.Create(filepath.Join(dir, "sub", "sparse"))
	check(err)
	check(sparse.Truncate(8 << 20))
	check(sparse.Close())
	attributes := syscall.Setxattr(filepath.Join(dir, "sub"), "user.colour", []byte("a\x00b"), 0) == nil
	var archive, problems bytes.Buffer
	failed, err := files.Tar(dir, files.TarOptions{Attributes: true}, &archive, &problems)
	if err != nil || failed != 0 {
		t.Fatal(err, problems.String())
	}
	// As a guest's disk may have it: a device, and an archive's end behind it.
	whole := archive.Bytes()[:archive.Len()-1024]
	var device bytes.Buffer
	w := tar.NewWriter(&device)
	check(w.WriteHeader(&tar.Header{Name: "data/disk", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}))
	check(w.Close())
	to := filepath.Join(top, "to")
	check(os.Mkdir(to, 0o700))
	stdin := os.Stdin
	defer func() { os.Stdin = stdin }()
	from := filepath.Join(top, "archive")
	check(os.WriteFile(from, append(whole, device.Bytes()...), 0o600))
	os.Stdin, err = os.Open(from)
	check(err)
	check(unpack(to))
	stat := func(name string) (st syscall.Stat_t) {
		t.Helper()
		check(syscall.Lstat(filepath.Join(to, "data", name), &st))
		return st
	}
	if st := stat(""); st.Mode&0o7777 != 0o750 {
		t.Errorf("the root has mode %o", st.Mode)
	}
	if st := stat("sub"); st.Mode&0o7777 != 0o2551 {
		t.Errorf("a directory has mode %o", st.Mode)
	}
	if st := stat("file"); st.Mode&0o7777 != 0o444 || st.Nlink != 2 || st.Ino != stat("again").Ino {
		t.Errorf("the file has mode %o and %d names", st.Mode, st.Nlink)
	}
	if st := stat("sub/sparse"); st.Size != 8<<20 || st.Blocks > 64 {
		t.Errorf("of %d bytes %d blocks are there", st.Size, st.Blocks)
	}
	if link, err := os.Readlink(filepath.Join(to, "data", "link")); err != nil || link != "/nowhere" {
		t.Errorf("the link leads to %q: %v", link, err)
	}
	if _, err := os.Lstat(filepath.Join(to, "data", "disk")); !os.IsNotExist(err) {
		t.Errorf("the device is there: %v", err)
	}
	value := make([]byte, 8)
	if n, err := syscall.Getxattr(filepath.Join(to, "data", "sub"), "user.colour", value); attributes && string(value[:max(n, 0)]) != "a\x00b" {
		t.Errorf("the attribute is %q: %v", value[:max(n, 0)], err)
	}
}
