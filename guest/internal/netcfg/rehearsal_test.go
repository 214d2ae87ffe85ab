package netcfg

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAheadIsReadOnlyWhatEnds(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "libc.so.6")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"sh": file, "kmsg": "/proc/kmsg", "version": "/proc/version", "null": "/dev/null", "none": "/none", "dir": root} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"libc.so.6": true, "sh": true, "kmsg": false, "version": false, "null": false, "none": false, "dir": false} {
		f, ok := openAhead(root, filepath.Join(root, name))
		if ok != want {
			t.Errorf("%s: %v", name, ok)
		}
		if ok {
			f.Close()
		}
	}
}
