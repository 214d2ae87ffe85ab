package netcfg

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMakeDirectory(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{
		"dangling": dir + "/behind/it", "relative": "there/x", "out": "../../../../../../../../.." + dir + "/climbed", "itself": "itself",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, made string }{
		{"a/b/c", "a/b/c"}, {"a/../d//e/.", "d/e"}, {"dangling", "behind/it"}, {"dangling/y", "behind/it/y"},
		{"relative/z", "there/x/z"}, {"out/q", "climbed/q"}, {"a b/c'd", "a b/c'd"}, {"file", ""}, {"file/x", ""}, {"itself/x", ""},
	} {
		err := MakeDirectory(dir + "/" + c.path)
		if c.made == "" {
			if err == nil {
				t.Errorf("%s: no error", c.path)
			}
			continue
		}
		fi, serr := os.Lstat(dir + "/" + c.made)
		if err != nil || serr != nil || !fi.IsDir() || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v; %s: %v %v", c.path, err, c.made, fi, serr)
		}
	}
	if err := MakeDirectory("/../../" + dir + "/above"); err != nil {
		t.Error(err)
	}
	if err := makeDirectories([]string{dir + "/file", dir + "/other"}); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(dir + "/other"); err != nil {
		t.Error("one failure kept the others from being made")
	}
}

func TestPlacesBelongToTheOwnerAbove(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners are given by root")
	}
	home := t.TempDir()
	if err := os.Chown(home, 5, 6); err != nil {
		t.Fatal(err)
	}
	if err := makePlace(home + "/a/b"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/a", "/a/b"} {
		var st syscall.Stat_t
		if err := syscall.Stat(home+name, &st); err != nil || st.Uid != 5 || st.Gid != 6 {
			t.Errorf("%s is %d:%d's (%v)", name, st.Uid, st.Gid, err)
		}
	}
}
