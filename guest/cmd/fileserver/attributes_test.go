package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAttributes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a\nfile")
	link := filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setxattr(file, "user.mine", []byte{0, 255}, 0); err != nil {
		t.Skip("no attributes here: ", err)
	}
	var out strings.Builder
	in := strings.Join([]string{file, link, filepath.Join(dir, "none"), dir}, "\x00") + "\x00"
	if err := attributes(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	want := "{\"user.mine\":\"AP8=\"}\n{}\n{}\n{}\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
