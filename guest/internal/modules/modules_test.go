package modules

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"char_major_10_200", "char_major_10_200", true},
		{"char_major_10_200", "char_major_10_20", false},
		{"char_major_10_*", "char_major_10_200", true},
		{"pci:v*d*sv*bc02sc00i*", "pci:v00001AF4d00001000sv00001AF4bc02sc00i00", true},
		{"pci:v*bc03*", "pci:v00001AF4bc02sc00", false},
		{"of:N*T*Cacme,x*", "of:NxT/a/b/Cacme,x", true},
		{"usb:d[0-9]?i*", "usb:d7xi", true},
		{"usb:d[!0-9]*", "usb:d7", false},
		{"usb:d[^a]*", "usb:d7", true},
		{"*", "", true}, {"", "", true}, {"", "x", false}, {"a*b*c", "aXbXbXc", true},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q %q: %v", c.pattern, c.name, got)
		}
	}
	if got := normalize("a-b[x-z]c-d"); got != "a_b[x-z]c_d" {
		t.Error(got)
	}
}

// TestLoad: what is loaded for a request, in which order, with which options.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/modules.dep", "kernel/a-b.ko: kernel/mid.ko kernel/base.ko\nkernel/mid.ko: kernel/base.ko\nkernel/base.ko:\n"+
		"kernel/soft1.ko.xz:\nkernel/soft2.ko:\nkernel/twin1.ko:\nkernel/twin2.ko:\nkernel/bad.ko: kernel/base.ko\n")
	write(t, dir+"/modules.alias", "# about\nalias char-major-10-200 a_b\nalias twin-* twin1\nalias twin-[0-9] twin2\nalias x-bad bad\n")
	write(t, dir+"/modules.softdep", "softdep a_b pre: soft1 missing post: soft2\n")
	write(t, dir+"/d/one.conf", "options a-b depth=3 name=x\nblacklist twin1\ninstall refused /bin/false\nalias mine a-b\n")
	write(t, dir+"/late/one.conf", "blacklist twin2\n")
	for _, c := range []struct {
		wanted string
		fail   string // module that the kernel refuses
		had    string // module that is there already
		want   []string
		err    bool
	}{
		{wanted: "char-major-10-200", want: []string{"soft1.ko.xz", "base.ko", "mid.ko", "a-b.ko depth=3 name=x more=1", "soft2.ko"}},
		{wanted: "a-b", had: "mid", want: []string{"soft1.ko.xz", "base.ko", "a-b.ko depth=3 name=x more=1", "soft2.ko"}},
		{wanted: "mine", had: "a_b"},
		{wanted: "twin-1", want: []string{"twin2.ko"}},
		{wanted: "twin1", want: []string{"twin1.ko"}},
		{wanted: "x-bad", fail: "base", want: []string{"base.ko"}, err: true},
		{wanted: "nothing", err: true},
	} {
		r, err := readRules([]string{dir + "/d", dir + "/late"}, "quiet a_b.more=1 vmsan.root=flat vmsan.debug")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		done := map[string]bool{c.had: true}
		l := &loader{dir: dir, rules: r, busy: map[string]bool{}}
		l.loaded = func(name string) bool { return done[name] }
		l.load = func(path, options string) error {
			line := filepath.Base(path)
			if options != "" {
				line += " " + options
			}
			got = append(got, line)
			if name := nameOf(path); name == c.fail {
				return errors.New("refused")
			} else {
				done[name] = true
			}
			return nil
		}
		err = l.serve(c.wanted)
		if !reflect.DeepEqual(got, c.want) || (err != nil) != c.err {
			t.Errorf("%s: %q %v", c.wanted, got, err)
		}
	}
	if !IsRequest([]string{"x", "-q", "--", "fs-fuse"}) || IsRequest([]string{"x", "serve", "--", "y"}) {
		t.Error("requests of the kernel")
	}
}

// TestRefused: `install` of modprobe.d keeps a module out, also as another's need.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/modules.dep", "a.ko: b.ko\nb.ko:\n")
	write(t, dir+"/d/x.conf", "install b /bin/true\n")
	r, err := readRules([]string{dir + "/d"}, "modprobe.blacklist=c,d-e")
	if err != nil {
		t.Fatal(err)
	}
	if !r.blacklist["c"] || !r.blacklist["d_e"] {
		t.Error(r.blacklist)
	}
	l := &loader{dir: dir, rules: r, busy: map[string]bool{}, loaded: func(string) bool { return false }}
	l.load = func(path, _ string) error { t.Error("loaded ", path); return nil }
	if err := l.serve("a"); err == nil {
		t.Error("loaded all the same")
	}
}
