package netcfg

import (
	"errors"
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

// What has one name is one directory, whatever part of it is shown where and whether it may be written there.
func TestMountsOfOneNameAreOneDirectory(t *testing.T) {
	mountsApart(t)
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	own, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	c := &Config{Own: own}
	defer func() {
		for _, place := range c.memories {
			_ = syscall.Unmount(place, syscall.MNT_DETACH) // gone with the namespace anyway
			_ = os.RemoveAll(filepath.Dir(place))
		}
		_ = syscall.Unmount(root, syscall.MNT_DETACH) // so that it can be removed
	}()
	mode := uint32(0o2770)
	in := func(names ...string) string { return filepath.Join(append([]string{root, "at"}, names...)...) }
	write := func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }
	for _, kind := range []string{kindOwn, kindTmpfs} {
		for _, m := range []Mount{
			{Name: "e", Target: in(kind, "whole")},
			{Name: "e", Target: in(kind, "part"), Part: "a/b"},
			{Name: "e", Target: in(kind, "whole", "fixed"), Part: "a", ReadOnly: true},
			{Target: in(kind, "other")},
			{Target: in(kind, "still"), ReadOnly: true},
		} {
			m.Kind, m.Empty, m.Mode, m.GID = kind, true, &mode, 2000
			if err := c.mount(m); err != nil {
				t.Fatal(kind, m.Target, err)
			}
		}
		if err := write(in(kind, "part", "file")); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{in(kind, "whole", "a", "b", "file"), in(kind, "whole", "fixed", "b", "file")} {
			if _, err := os.Stat(path); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{in(kind, "whole", "fixed"), in(kind, "still")} {
			if err := write(dir + "/new"); err == nil {
				t.Fatalf("%s was written to", dir)
			}
		}
		if names, err := os.ReadDir(in(kind, "other")); err != nil || len(names) != 0 {
			t.Fatal(names, err)
		}
		for _, dir := range []string{"whole", "part", "other", "still"} {
			var st syscall.Stat_t
			if err := syscall.Stat(in(kind, dir), &st); err != nil || st.Mode&0o7777 != mode || st.Gid != 2000 {
				t.Fatalf("%s/%s: %o of %d (%v)", kind, dir, st.Mode, st.Gid, err)
			}
		}
		// What it all lies in is nobody's but root's.
		for _, place := range c.memories {
			if fi, err := os.Stat(filepath.Dir(place)); err != nil || fi.Mode().Perm() != 0o700 {
				t.Fatal(fi, err)
			}
		}
		// Who runs in the guest has put a link in a part's place.
		if err := os.Symlink("/etc", in(kind, "whole", "link")); err != nil {
			t.Fatal(err)
		}
		if err := c.mount(Mount{Kind: kind, Empty: true, Name: "e", Part: "link", Target: in(kind, "away")}); err == nil {
			t.Fatal("a link was followed")
		}
	}
}

// Of a volume a part is shown as it is found: nothing is made in it, and no link leads out of it.
func TestPartsOfVolumesAreFound(t *testing.T) {
	mountsApart(t)
	root := t.TempDir()
	data, at := filepath.Join(root, "data"), filepath.Join(root, "at")
	if err := os.MkdirAll(data+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(data+"/a/b/file", []byte("x"), 0o600), os.Symlink("/etc", data+"/out"),
		os.Symlink("a", data+"/in"), syscall.Mkfifo(data+"/pipe", 0o600)); err != nil {
		t.Fatal(err)
	}
	for part, found := range map[string]string{"a": "/b/file", "a/b": "/file", "a/b/file": ""} {
		m := Mount{Kind: kindVolume, Part: part, Target: filepath.Join(at, part, "here")}
		if err := bindFound(data, m); err != nil {
			t.Fatal(part, err)
		}
		if text, err := os.ReadFile(m.Target + found); err != nil || string(text) != "x" {
			t.Fatal(part, string(text), err)
		}
		if err := syscall.Unmount(m.Target, syscall.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"none", "a/none/b", "out", "out/hosts", "in/b", "a/b/file/x", "pipe"} {
		target := filepath.Join(at, "refused")
		if err := bindFound(data, Mount{Kind: kindVolume, Part: part, Target: target}); err == nil {
			t.Fatal(part, "was mounted")
		}
		if _, err := os.Lstat(target); err == nil {
			t.Fatal(part, "has made its place")
		}
	}
	if names, err := os.ReadDir(data + "/a"); err != nil || len(names) != 1 {
		t.Fatal("something was made in the volume", names, err)
	}
}

// A place of the image's that a link of it leads away from hides nothing that the user has put where it leads.
func TestPlacesOfTheImageHideNoMount(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/run", 0o755), os.Symlink("run", root+"/link")); err != nil {
		t.Fatal(err)
	}
	own, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	image := []Mount{{Kind: kindOwn, Target: root + "/link", Optional: true}}
	fail := func(err error) { t.Error(err) }
	for _, shared := range []bool{false, true} {
		c, others := &Config{Own: own}, []string{}
		if shared {
			others = append(others, root+"/run")
		} else {
			c.mounted = map[string]bool{root + "/run": true}
		}
		if err := c.mountAll(image, others, fail); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(root + "/volumes"); !os.IsNotExist(err) {
			t.Fatal("something was made for it", err)
		}
	}
}
