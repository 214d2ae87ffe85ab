package netcfg

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestOverwriteFileKeepsThePlaceholdersFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	if err := replaceFile(dir, "hosts", "placeholder\n", 0o644); err != nil {
		t.Fatal(err)
	}
	before := inode(t, path)
	for _, content := range []string{"127.0.0.1 a much longer line than the placeholder\n", "short\n"} {
		if err := overwriteFile(dir, "hosts", content, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("%q instead of %q", got, content)
		}
		if inode(t, path) != before {
			t.Error("it is another file")
		}
	}
}

func TestOverwriteFileReplacesWhatIsNoPlaceholder(t *testing.T) {
	for name, make := range map[string]func(dir, path string) error{
		"nothing":    func(string, string) error { return nil },
		"a symlink":  func(dir, path string) error { return os.Symlink(filepath.Join(dir, "other"), path) },
		"its mode":   func(_, path string) error { return os.WriteFile(path, []byte("own\n"), 0o600) },
		"two names":  func(dir, path string) error { return os.Link(filepath.Join(dir, "other"), path) },
		"a pipe":     func(_, path string) error { return syscall.Mkfifo(path, 0o644) },
		"longer one": func(_, path string) error { return os.WriteFile(path, []byte("a longer text\n"), 0o640) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, other := filepath.Join(dir, "hosts"), filepath.Join(dir, "other")
			if err := os.WriteFile(other, []byte("keep\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := make(dir, path); err != nil {
				t.Fatal(err)
			}
			if err := overwriteFile(dir, "hosts", "new\n", 0o644); err != nil {
				t.Fatal(err)
			}
			fi, err := os.Lstat(path)
			if got, _ := os.ReadFile(path); err != nil || string(got) != "new\n" || fi.Mode() != 0o644 {
				t.Errorf("%q, %v, %v", got, fi, err)
			}
			if got, _ := os.ReadFile(other); string(got) != "keep\n" {
				t.Errorf("the other file has %q", got)
			}
		})
	}
}
