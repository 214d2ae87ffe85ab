package netcfg

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFillReplacesAnEmptyDirectoryAndWhatWasCutOff(t *testing.T) {
	root := t.TempDir()
	image, dir := filepath.Join(root, "image"), filepath.Join(root, "data")
	for _, d := range []string{image, dir, dir + ".new/half"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(image, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fill(image, dir); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 || names[0].Name() != "a" {
		t.Fatalf("%v (%v)", names, err)
	}
	if _, err := os.Lstat(dir + ".new"); !os.IsNotExist(err) {
		t.Fatal("something was left behind")
	}
	if err := fill(image, dir); err == nil {
		t.Fatal("a directory that is not empty was replaced")
	}
}

func TestEmptyDirectoriesAreEverybodys(t *testing.T) {
	dir := t.TempDir() + "/empty"
	// What a kill has left of an attempt before.
	if err := os.MkdirAll(dir+".new/old", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makeEmpty(dir, Mount{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dir)
	if err != nil || fi.Mode().Perm() != emptyMode {
		t.Fatal(fi, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Fatal(names, err)
	}
}

func TestMountsAreChecked(t *testing.T) {
	tooMuch := uint32(0o10000)
	for _, m := range []Mount{
		{Kind: "own", Target: "data"},
		{Kind: "own", Target: "/a\x00b"},
		{Kind: "own", Target: "/a", Label: "vmsan-v1"},
		{Kind: "volume", Target: "/a"},
		{Kind: "volume", Target: "/a", Label: "vmsan-modules"},
		{Kind: "", Target: "/a"},
		{Kind: "tmpfs", Target: "/a", Label: "vmsan-v1"},
		{Kind: "tmpfs", Target: "/a", Mode: &tooMuch},
		{Kind: "own", Target: "/a", Mode: &tooMuch},
		{Kind: "own", Target: "/a", Name: "/b"},
		{Kind: "own", Target: "/a", Part: ".."},
		{Kind: "own", Target: "/a", Part: "b/../../c"},
		{Kind: "own", Target: "/a", Part: "/b"},
		{Kind: "tmpfs", Target: "/a", Part: "b//c"},
		{Kind: "volume", Target: "/a", Label: "vmsan-v1", Part: "b/../c"},
	} {
		if _, err := check(&Request{Mounts: []Mount{m}}); err == nil {
			t.Errorf("%+v is taken", m)
		}
	}
}
