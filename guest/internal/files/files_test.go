package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

// describe lists a tree with everything that must survive.
func describe(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%q %o %d", rel, st.Mode, st.Mtim.Nano())
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", len(data), hash(data))
			if st.Nlink > 1 {
				if inodes[st.Ino] == "" {
					inodes[st.Ino] = rel
				}
				fmt.Fprintf(&b, " =%q", inodes[st.Ino])
			}
		case syscall.S_IFLNK:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&b, " -> %q", to)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// grow makes a random tree.
func grow(t *testing.T, rnd *rand.Rand, dir string, depth int) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"a", "b c", "ü", "new\nline", "-x", strings.Repeat("l", 255), "\xff\xfe", "x=y", ".hidden", "tab\t", "q'\"", "*", "CON"}
	rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var files []string
	for _, n := range names[:rnd.Intn(len(names))] {
		p := dir + "/" + n
		switch rnd.Intn(7) {
		case 0, 1:
			data := make([]byte, rnd.Intn(1500))
			rnd.Read(data)
			check(os.WriteFile(p, data, 0o600))
			files = append(files, p)
		case 2:
			if depth < 4 {
				check(os.Mkdir(p, 0o700))
				grow(t, rnd, p, depth+1)
			}
			continue
		case 3:
			check(os.Symlink([]string{"..", "/etc/passwd", "a", "no\nwhere", strings.Repeat("t/", 200)}[rnd.Intn(5)], p))
			check(utimes(p, rnd.Int63n(1<<32), rnd.Int63n(1e9)))
			continue
		case 4:
			if len(files) > 0 {
				check(os.Link(files[rnd.Intn(len(files))], p))
			}
			continue
		case 5:
			f, err := os.Create(p)
			check(err)
			check(f.Truncate(int64(rnd.Intn(3 << 20))))
			_, err = f.WriteAt([]byte("data"), int64(rnd.Intn(3<<20)))
			check(err)
			check(f.Close())
		case 6:
			check(syscall.Mknod(p, syscall.S_IFIFO|0o600, 0))
		}
		check(syscall.Chmod(p, uint32(rnd.Intn(0o10000))))
		check(utimes(p, rnd.Int63n(1<<34)-1<<33, rnd.Int63n(1e9)))
	}
	if depth > 0 {
		check(syscall.Chmod(dir, uint32(0o700|rnd.Intn(0o10000))))
		check(utimes(dir, rnd.Int63n(1<<32), rnd.Int63n(1e9)))
	}
}

func pack(t *testing.T, path string) ([]byte, string) {
	t.Helper()
	var out, problems bytes.Buffer
	n, err := Tar(path, TarOptions{}, &out, &problems)
	if err != nil || n != 0 {
		t.Fatalf("%d %v %s", n, err, problems.String())
	}
	return out.Bytes(), problems.String()
}

// TestRoundTrip: random trees through Tar and Untar are identical.
func TestRoundTrip(t *testing.T) {
	for seed := range 40 {
		rnd := rand.New(rand.NewSource(int64(seed)))
		from, to := t.TempDir(), t.TempDir()
		if err := os.Mkdir(from+"/tree", 0o755); err != nil {
			t.Fatal(err)
		}
		grow(t, rnd, from+"/tree", 1)
		archive, _ := pack(t, from+"/tree")
		if err := Untar(UntarOptions{Path: to}, bytes.NewReader(archive)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if a, b := describe(t, from+"/tree"), describe(t, to+"/tree"); a != b {
			t.Fatalf("seed %d:\n%s\n%s", seed, a, b)
		}
		if left, _ := filepath.Glob(to + "/.vmsan*"); len(left) > 0 {
			t.Fatalf("left over: %v", left)
		}
	}
}

// TestGNUTar: the system's tar reads what Tar writes, and the other way round.
func TestGNUTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("there is no tar here")
	}
	rnd := rand.New(rand.NewSource(77))
	from, to, back := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Mkdir(from+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	grow(t, rnd, from+"/tree", 1)
	archive, _ := pack(t, from+"/tree")
	cmd := exec.Command("tar", "-xp", "-C", to)
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if a, b := describe(t, from+"/tree"), describe(t, to+"/tree"); a != b {
		t.Fatalf("\n%s\n%s", a, b)
	}
	for _, format := range []string{"pax", "gnu"} {
		cmd = exec.Command("tar", "-c", "-S", "--format="+format, "-C", from, "tree")
		theirs, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := Untar(UntarOptions{Path: back}, bytes.NewReader(theirs)); err != nil {
			t.Fatal(err)
		}
		if format == "pax" {
			if a, b := describe(t, from+"/tree"), describe(t, back+"/tree"); a != b {
				t.Fatalf("\n%s\n%s", a, b)
			}
		}
	}
}

func TestSparse(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	f, err := os.Create(from + "/big")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("middle"), 700<<20); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	archive, _ := pack(t, from+"/big")
	if len(archive) > 1<<20 {
		t.Fatalf("%d bytes: holes were written out", len(archive))
	}
	if err := Untar(UntarOptions{Path: to}, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(to+"/big", &st); err != nil || st.Size != 1<<30 || st.Blocks*512 > 1<<20 {
		t.Fatalf("%v size %d blocks %d", err, st.Size, st.Blocks)
	}
}

// entries makes an archive by hand.
func entries(t *testing.T, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		body := []byte("data")
		if h.Typeflag != tar.TypeReg {
			body = nil
		}
		h.Size = int64(len(body))
		h.Mode = 0o644
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileArchives: nothing escapes, and after a failure nothing is there.
func TestHostileArchives(t *testing.T) {
	outside := t.TempDir()
	cases := map[string][]byte{
		"absolute dot dot":     entries(t, tar.Header{Name: "/../x", Typeflag: tar.TypeReg}),
		"absolute link out":    entries(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"dot dot":              entries(t, tar.Header{Name: "a/../../x", Typeflag: tar.TypeReg}),
		"through symlink":      entries(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, tar.Header{Name: "l/x", Typeflag: tar.TypeReg}),
		"directory on symlink": entries(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, tar.Header{Name: "l/", Typeflag: tar.TypeDir}),
		"link out":             entries(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}),
		"link through symlink": entries(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "l/passwd"}),
		"link to nothing":      entries(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "y"}),
		"file and directory":   entries(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "d", Typeflag: tar.TypeReg}),
		"cut":                  entries(t, tar.Header{Name: "ok", Typeflag: tar.TypeReg}, tar.Header{Name: "x", Typeflag: tar.TypeReg})[:1500+512],
		"rubbish":              bytes.Repeat([]byte("rubbish "), 200),
	}
	cases["cut"] = entries(t, tar.Header{Name: "ok", Typeflag: tar.TypeReg}, tar.Header{Name: "x", Typeflag: tar.TypeReg})[:1024+512+2]
	for name, archive := range cases {
		t.Run(name, func(t *testing.T) {
			to := t.TempDir()
			err := Untar(UntarOptions{Path: to}, bytes.NewReader(archive))
			var info *wire.ErrorInfo
			if !errors.As(err, &info) {
				t.Fatalf("got %v", err)
			}
			for _, dir := range []string{to, outside} {
				if left, _ := os.ReadDir(dir); len(left) != 0 {
					t.Fatalf("%s has %v", dir, left)
				}
			}
		})
	}
}

// TestAbsoluteNames: as with tar(1) they are meant below the target.
func TestAbsoluteNames(t *testing.T) {
	to := t.TempDir()
	archive := entries(t, tar.Header{Name: "//a/x", Typeflag: tar.TypeReg}, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "/a/x"})
	if err := Untar(UntarOptions{Path: to}, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	a, err := os.Stat(to + "/a/x")
	b, berr := os.Stat(to + "/l")
	if err != nil || berr != nil || !os.SameFile(a, b) {
		t.Fatal(err, berr)
	}
}

func TestUntarIntoWhatIsThere(t *testing.T) {
	to := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(to+"/d", 0o711))
	check(os.WriteFile(to+"/d/keep", []byte("keep"), 0o600))
	check(os.Symlink("/etc/passwd", to+"/d/x"))
	check(os.Mkdir(to+"/dir", 0o700))
	check(Untar(UntarOptions{Path: to}, bytes.NewReader(entries(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "d/x", Typeflag: tar.TypeReg}, tar.Header{Name: "new/y", Typeflag: tar.TypeReg}))))
	if b, err := os.ReadFile(to + "/d/x"); err != nil || string(b) != "data" {
		t.Fatal(string(b), err)
	}
	if fi, err := os.Lstat(to + "/d/x"); err != nil || !fi.Mode().IsRegular() {
		t.Fatal("the symlink was written through")
	}
	if fi, err := os.Stat(to + "/d"); err != nil || fi.Mode().Perm() != 0o711 {
		t.Fatal("an existing directory's mode was changed")
	}
	if b, err := os.ReadFile(to + "/d/keep"); err != nil || string(b) != "keep" {
		t.Fatal("an existing file is gone")
	}
	before := describe(t, to)
	for _, h := range []tar.Header{{Name: "dir", Typeflag: tar.TypeReg}, {Name: "d/keep/z", Typeflag: tar.TypeReg}} {
		err := Untar(UntarOptions{Path: to}, bytes.NewReader(entries(t, tar.Header{Name: "first", Typeflag: tar.TypeReg}, h)))
		if err == nil {
			t.Fatalf("%s replaced", h.Name)
		}
		if _, err := os.Lstat(to + "/first"); err == nil {
			t.Fatal("half of the archive is there")
		}
	}
	if !strings.Contains(describe(t, to), strings.SplitN(before, "\n", 2)[1]) {
		t.Fatal("something changed")
	}
	if err := Untar(UntarOptions{Path: to + "/no/such"}, bytes.NewReader(nil)); err == nil {
		t.Fatal("a missing directory was accepted")
	}
	check(Untar(UntarOptions{Path: to + "/no/such", Parents: true}, bytes.NewReader(nil)))
}

func TestReadWrite(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir+"/f", WriteOptions{}, strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/f", 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", dir+"/l"); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir+"/l", WriteOptions{}, strings.NewReader("9876543210")); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(dir + "/l"); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Fatal("the symlink was replaced")
	}
	if fi, err := os.Stat(dir + "/f"); err != nil || fi.Mode().Perm() != 0o640 {
		t.Fatal("the mode was not kept")
	}
	var b bytes.Buffer
	n := int64(3)
	if err := Read(dir+"/l", false, 2, &n, &b); err != nil || b.String() != "765" {
		t.Fatal(b.String(), err)
	}
	if err := Read(dir+"/l", true, 0, nil, io.Discard); err == nil {
		t.Fatal("a link was read through")
	}
	if err := Read(dir+"/f", true, 0, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := Read(dir, false, 0, nil, io.Discard); err == nil {
		t.Fatal("a directory was read")
	}
	if err := Write("/dev/null", WriteOptions{}, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir+"/broken", WriteOptions{}, io.MultiReader(strings.NewReader("x"), brokenReader{})); err == nil {
		t.Fatal("a broken input was accepted")
	}
	if names, _ := os.ReadDir(dir); len(names) != 2 {
		t.Fatalf("left over: %v", names)
	}
}

func TestWriteInPlace(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string, values map[string]string) {
		t.Helper()
		o := WriteOptions{InPlace: true, Attributes: &wire.Attributes{Prefix: "user.test.", Values: values}}
		if err := Write(path, o, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	told := func(path string) string {
		t.Helper()
		e, err := Stat(path, false, "user.test.")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(e.Attributes)
	}
	f := dir + "/f"
	if err := os.WriteFile(f, []byte("long before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setxattr(f, "user.other", []byte("o"), 0); err != nil {
		t.Skip("no extended attributes here:", err)
	}
	if err := os.Link(f, dir+"/g"); err != nil {
		t.Fatal(err)
	}
	write(f, "one", map[string]string{"a": "MQ==", "b": "Mg=="})
	if b, err := os.ReadFile(dir + "/g"); err != nil || string(b) != "one" {
		t.Fatal("not the same file", string(b), err)
	}
	if got := told(f); got != "map[a:MQ== b:Mg==]" {
		t.Fatal(got)
	}
	write(f, "two", map[string]string{"b": "Mw=="})
	if got := told(f); got != "map[b:Mw==]" {
		t.Fatal(got)
	}
	var other [4]byte
	if n, err := syscall.Getxattr(f, "user.other", other[:]); err != nil || string(other[:n]) != "o" {
		t.Fatal("another's attribute is gone", err)
	}
	// A replaced file has those of its last writer too.
	o := WriteOptions{Attributes: &wire.Attributes{Prefix: "user.test.", Values: map[string]string{"c": "NA=="}}}
	if err := Write(f, o, strings.NewReader("three")); err != nil {
		t.Fatal(err)
	}
	var listed []string
	if err := List(dir, ListOptions{Depth: 1, Attributes: "user.test."}, func(e *Entry) error {
		listed = append(listed, fmt.Sprint(filepath.Base(string(e.Path)), e.Attributes))
		return nil
	}); err != nil || strings.Join(listed, " ") != "fmap[c:NA==] gmap[b:Mw==]" {
		t.Fatal(listed, err)
	}
	if err := Write(dir, WriteOptions{InPlace: true}, strings.NewReader("")); err == nil {
		t.Fatal("a directory was written")
	}
}

func TestListDepth(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	for depth, want := range map[int]int{1: 1, 2: 2, 3: 3, 9: 3} {
		n := 0
		if err := List(dir, ListOptions{Depth: depth}, func(*Entry) error { n++; return nil }); err != nil || n != want {
			t.Fatal(depth, n, err)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestOps(t *testing.T) {
	dir := t.TempDir()
	if err := Mkdir(dir+"/a/b", false, 0o755); err == nil {
		t.Fatal("made below nothing")
	}
	if err := Mkdir(dir+"/a/b", true, 0o1777); err != nil {
		t.Fatal(err)
	}
	if e, err := Stat(dir+"/a/b", false, ""); err != nil || e.Mode != 0o1777 || e.Type != "dir" {
		t.Fatal(e, err)
	}
	if err := Write(dir+"/a/f", WriteOptions{}, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir+"/g", WriteOptions{}, strings.NewReader("y")); err != nil {
		t.Fatal(err)
	}
	if err := Move(dir+"/g", dir+"/a/f", false); err == nil {
		t.Fatal("overwritten")
	}
	if err := Move(dir+"/g", dir+"/a/f", true); err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := List(dir, ListOptions{Depth: 9}, func(e *Entry) error { names = append(names, strings.TrimPrefix(string(e.Path), dir)); return nil }); err != nil || strings.Join(names, " ") != "/a /a/b /a/f" {
		t.Fatal(names, err)
	}
	if err := Remove(dir+"/a", false); err == nil {
		t.Fatal("removed a full directory")
	}
	if err := Remove(dir+"/a", true); err != nil {
		t.Fatal(err)
	}
	if err := Remove("/..", true); err == nil {
		t.Fatal("removed the root")
	}
}

// TestAs: another user's rights count, on that thread alone.
func TestAs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if fi, err := os.Stat(d); err == nil && fi.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(d, fi.Mode().Perm()|0o711); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/secret", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u := &proc.User{UID: 4321, GID: 1234}
	err := As(u, false, func() error {
		if _, err := os.ReadFile(dir + "/secret"); !errors.Is(err, os.ErrPermission) {
			t.Errorf("read root's file: %v", err)
		}
		return Untar(UntarOptions{Path: dir}, bytes.NewReader(entries(t, tar.Header{Name: "d/f", Typeflag: tar.TypeReg})))
	})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Stat(dir+"/d/f", false, ""); err != nil || e.UID != 4321 || e.GID != 1234 {
		t.Fatal(e, err)
	}
	if _, err := os.ReadFile(dir + "/secret"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err = As(u, true, func() error {
		if _, err := os.ReadFile(dir + "/secret"); err != nil {
			t.Errorf("read root's file although permissions do not hold: %v", err)
		}
		return Mkdir(dir+"/made", false, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Stat(dir+"/made", false, ""); err != nil || e.UID != 4321 || e.GID != 1234 {
		t.Fatal(e, err)
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	w, err := NewWatcher(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	r, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- w.Run(out) }()
	line := make([]byte, 4096)
	next := func() string {
		n, err := r.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		return string(line[:n])
	}
	if l := next(); l != "{\"event\":\"ready\"}\n" {
		t.Fatal(l)
	}
	if err := os.MkdirAll(dir+"/new/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	if l := next(); !strings.Contains(l, `"create"`) {
		t.Fatal(l)
	}
	if l := next(); !strings.Contains(l, `"create"`) || !strings.Contains(l, `"dir":true`) {
		t.Fatal(l)
	}
	go func() {
		// The watch of the new directory may come a moment later: try until it is told.
		for i := 0; ; i++ {
			select {
			case <-time.After(20 * time.Millisecond):
				_ = os.WriteFile(fmt.Sprintf("%s/new/deep/f%d", dir, i), []byte("x"), 0o600)
			case <-t.Context().Done():
				return
			}
		}
	}()
	for l := ""; !strings.Contains(l, `"modify"`); l = next() {
		_ = l
	}
	w.Close()
	_ = r.Close()
	<-done
}

func FuzzUntar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "a/b", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg})
	_, _ = w.Write([]byte("x"))
	_ = w.WriteHeader(&tar.Header{Name: "l", Linkname: "..", Typeflag: tar.TypeSymlink})
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		root := t.TempDir()
		if err := os.Mkdir(root+"/in", 0o700); err != nil {
			t.Fatal(err)
		}
		// Errors are fine; leaving the directory is not.
		_ = Untar(UntarOptions{Path: root + "/in"}, bytes.NewReader(b))
		if names, err := os.ReadDir(root); err != nil || len(names) != 1 {
			t.Fatalf("%v %v", names, err)
		}
	})
}
