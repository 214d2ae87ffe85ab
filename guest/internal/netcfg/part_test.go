package netcfg

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Parts are made as the directory is that they are of, and links in it lead nowhere.
func TestPartsAreEntered(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o770|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Open(root, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(at)
	for range 2 {
		made, err := enter(at, "made")
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(made)
		inner, err := enter(made, "inner")
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(inner)
	}
	for _, name := range []string{"made", "made/inner"} {
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil || fi.Mode().Perm() != 0o770 || fi.Mode()&os.ModeSetgid == 0 {
			t.Fatal(fi, err)
		}
	}
	for name, to := range map[string]string{"up": "..", "away": t.TempDir(), "same": "made"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if fd, err := enter(at, name); err == nil {
			_ = syscall.Close(fd)
			t.Fatalf("%s was followed", name)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := enter(at, "file"); err == nil {
		t.Fatal("a file was entered")
	}
}
