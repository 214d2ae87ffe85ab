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

// TestOverwriteUnused: only a file that nobody has open or mapped and that is no mount keeps its place.
func TestOverwriteUnused(t *testing.T) {
	for name, c := range map[string]struct {
		use  func(t *testing.T, path string)
		same bool
	}{
		"nobody": {func(*testing.T, string) {}, true},
		"a reader": {func(t *testing.T, path string) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, false},
		"a writer": {func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, false},
		"a mapping": {func(t *testing.T, path string) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b, err := syscall.Mmap(int(f.Fd()), 0, 4, syscall.PROT_READ, syscall.MAP_PRIVATE)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Munmap(b) })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "hosts")
			if err := replaceFile(dir, "hosts", "the parent's, which is longer\n", 0o644); err != nil {
				t.Fatal(err)
			}
			before := inode(t, path)
			c.use(t, path)
			if err := overwriteUnused(dir, "hosts", "own\n", 0o644); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(path); string(got) != "own\n" {
				t.Errorf("%q", got)
			}
			if (inode(t, path) == before) != c.same {
				t.Errorf("the same file: %v", !c.same)
			}
			// It is free for others at once.
			if err := os.WriteFile(path, []byte("more\n"), 0o644); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestIsMountPoint(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if isMountPoint(int(f.Fd())) || !isMountPoint(int(root.Fd())) {
		t.Error(isMountPoint(int(f.Fd())), isMountPoint(int(root.Fd())))
	}
}
