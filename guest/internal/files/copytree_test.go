package files

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestCopyTreeKeepsWhatAFileIs(t *testing.T) {
	root := t.TempDir()
	from, to := filepath.Join(root, "from"), filepath.Join(root, "to")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(from, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(from, "sub/file"), []byte("content"), 0o640))
	must(syscall.Chmod(filepath.Join(from, "sub/file"), 0o4751))
	must(os.Link(filepath.Join(from, "sub/file"), filepath.Join(from, "again")))
	must(os.Symlink("/etc/nothing", filepath.Join(from, "link")))
	must(syscall.Mkfifo(filepath.Join(from, "fifo"), 0o600))
	sparse := filepath.Join(from, "sparse")
	must(os.WriteFile(sparse, nil, 0o600))
	must(os.Truncate(sparse, 8<<20))
	attribute := syscall.Setxattr(filepath.Join(from, "sub/file"), "user.colour", []byte("red"), 0) == nil
	then := time.Unix(1000000000, 123456789)
	must(os.Chtimes(filepath.Join(from, "sub/file"), then, then))
	must(os.Chtimes(filepath.Join(from, "sub"), then, then))
	must(syscall.Chmod(from, 0o1777))
	must(CopyTree(from, to))

	stat := func(name string) *syscall.Stat_t {
		t.Helper()
		var st syscall.Stat_t
		must(syscall.Lstat(filepath.Join(to, name), &st))
		return &st
	}
	if m := stat("").Mode & 0o7777; m != 0o1777 {
		t.Errorf("the directory has mode %o", m)
	}
	if b, err := os.ReadFile(filepath.Join(to, "again")); err != nil || string(b) != "content" {
		t.Errorf("content %q (%v)", b, err)
	}
	file := stat("sub/file")
	if file.Mode&0o7777 != 0o4751 || file.Nlink != 2 || file.Ino != stat("again").Ino {
		t.Errorf("file: mode %o, %d links", file.Mode&0o7777, file.Nlink)
	}
	for _, name := range []string{"sub/file", "sub"} {
		if m := stat(name).Mtim; m.Sec != then.Unix() || m.Nsec != 123456789 {
			t.Errorf("%s is of %d.%d", name, m.Sec, m.Nsec)
		}
	}
	if l, err := os.Readlink(filepath.Join(to, "link")); err != nil || l != "/etc/nothing" {
		t.Errorf("link to %q (%v)", l, err)
	}
	if stat("fifo").Mode&syscall.S_IFMT != syscall.S_IFIFO {
		t.Error("the fifo is none")
	}
	if st := stat("sparse"); st.Size != 8<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse: %d bytes in %d blocks", st.Size, st.Blocks)
	}
	if attribute {
		b := make([]byte, 16)
		if n, err := syscall.Getxattr(filepath.Join(to, "again"), "user.colour", b); err != nil || string(b[:n]) != "red" {
			t.Errorf("attribute %q (%v)", b[:max(n, 0)], err)
		}
	}
	if err := CopyTree(filepath.Join(from, "sub/file"), filepath.Join(root, "no")); err == nil {
		t.Error("a file was taken for a directory")
	}
}
