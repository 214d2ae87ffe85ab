package boot

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMakeUpper: the overlay shows the upper directory's mode and owner as the root's.
func TestMakeUpper(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give a directory away")
	}
	for _, mode := range []uint32{0o755, 0o555, 0o700, 0o1777, 0o2750} {
		dir := t.TempDir()
		base, upper := filepath.Join(dir, "base"), filepath.Join(dir, "upper")
		if err := os.Mkdir(base, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(base, 7, 8); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Chmod(base, mode); err != nil {
			t.Fatal(err)
		}
		// What a boot that was cut off has left.
		if err := os.Mkdir(upper+".new", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := makeUpper(base, upper); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(upper, &st); err != nil || st.Mode&0o7777 != mode || st.Uid != 7 || st.Gid != 8 {
			t.Errorf("%o: %o %d:%d %v", mode, st.Mode&0o7777, st.Uid, st.Gid, err)
		}
		// What the guest has changed since stays.
		if err := syscall.Chmod(upper, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := makeUpper(base, upper); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Stat(upper, &st); err != nil || st.Mode&0o7777 != 0o711 {
			t.Errorf("changed to 711, now %o %v", st.Mode&0o7777, err)
		}
	}
}

// TestRequireTimer: only a kernel that says that it has none is refused.
func TestRequireTimer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "current_device")
	if err := requireTimer(path); err != nil {
		t.Error("a kernel that says nothing", err)
	}
	for content, fails := range map[string]bool{"lapic\n": false, "\n": true, "": true} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := requireTimer(path); (err != nil) != fails {
			t.Errorf("%q: %v", content, err)
		}
	}
}
