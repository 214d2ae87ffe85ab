package netcfg

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWriteKeepsLinesOfAUsersOwn: a list that is written anew keeps what a user has added to it; one that need not
// be written stays as the user has made it.
func TestWriteKeepsLinesOfAUsersOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	c := &Config{}
	write := func(content string, lines bool) string {
		t.Helper()
		if err := c.write(text{dir: dir, name: "hosts", content: content, mode: 0o644, lines: lines}, replaceFile); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	edit := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What an image has there is not a user's.
	edit("10.0.0.1 image\n")
	if got := write("127.0.0.1 a\n1.1.1.1 a\n", true); got != "127.0.0.1 a\n1.1.1.1 a\n" {
		t.Errorf("first: %q", got)
	}
	edit("127.0.0.1 a\n10.0.0.5 db\n1.1.1.1 a\n# mine\n")
	if got := write("127.0.0.1 a\n1.1.1.1 a\n", true); got != "127.0.0.1 a\n10.0.0.5 db\n1.1.1.1 a\n# mine\n" {
		t.Errorf("nothing new: %q", got)
	}
	if got := write("127.0.0.1 b\n2.2.2.2 b\n", true); got != "127.0.0.1 b\n2.2.2.2 b\n10.0.0.5 db\n# mine\n" {
		t.Errorf("another name: %q", got)
	}
	if got := write("c\n", false); got != "c\n" {
		t.Errorf("no list: %q", got)
	}
	// A link leads to what is none of ours.
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("theirs\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path)
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	if got := write("d\n", true); got != "d\n" {
		t.Errorf("a link: %q", got)
	}
	c.rehearsed = true
	edit("placeholder\n")
	if got := write("e\n", true); got != "e\n" {
		t.Errorf("a placeholder: %q", got)
	}
}
