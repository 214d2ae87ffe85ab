// Tries a directory's file system, on the host and on a share in a guest alike: what both
// say can be compared line by line. Usage: probe conform DIR | fsx DIR SEED COUNT |
// watch DIR MILLISECONDS | tree DIR COUNT | work DIR COUNT WHAT.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	syscall.Umask(0o022)
	if len(os.Args) < 3 {
		fail(errors.New("usage: probe conform|fsx|watch|tree|work|count|append|map|lock DIR …"))
	}
	dir := os.Args[2]
	switch os.Args[1] {
	case "conform":
		conform(dir)
	case "fsx":
		fsx(dir, number(3), number(4))
	case "watch":
		watch(dir, time.Duration(number(3))*time.Millisecond)
	case "tree":
		tree(dir, number(3))
	case "count":
		count(dir, number(3), strings.Join(os.Args[4:], ""))
	case "append":
		appends(dir, os.Args[3], number(4))
	case "acknowledge":
		acknowledge(dir, os.Args[3])
	case "map":
		mapped(dir, os.Args[3], os.Args[4])
	case "lock":
		locked(dir)
	case "work":
		if len(os.Args) < 5 {
			fail(errors.New("usage: probe work DIR COUNT WHAT"))
		}
		work(dir, os.Args[4], number(3))
	}
}

func number(i int) int {
	n, err := strconv.Atoi(os.Args[i])
	fail(err)
	return n
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// word is an outcome in one word.
func word(v any) string {
	switch x := v.(type) {
	case nil:
		return "ok"
	case syscall.Errno:
		return errnoName(x)
	case error:
		var e syscall.Errno
		if errors.As(x, &e) {
			return errnoName(e)
		}
		return x.Error()
	}
	return fmt.Sprint(v)
}

func errnoName(e syscall.Errno) string { return fmt.Sprintf("E%d(%s)", int(e), e.Error()) }

// conform tries what pjdfstest and the like try, each in a directory of its own.
func conform(dir string) {
	root, err := os.MkdirTemp(dir, "conform-")
	fail(err)
	defer os.RemoveAll(root)
	for i, c := range cases {
		place := filepath.Join(root, strconv.Itoa(i))
		fail(os.Mkdir(place, 0o755))
		fail(os.Chdir(place))
		fmt.Printf("%s=%s\n", c.name, strings.ReplaceAll(word(c.try()), root, "ROOT"))
	}
	fail(os.Chdir("/"))
}

func touch(name, content string) { fail(os.WriteFile(name, []byte(content), 0o644)) }

func stat(name string) syscall.Stat_t {
	var st syscall.Stat_t
	if err := syscall.Lstat(name, &st); err != nil {
		return syscall.Stat_t{}
	}
	return st
}

func mode(name string) string { return fmt.Sprintf("%o", stat(name).Mode) }

func read(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return word(err)
	}
	return string(b)
}

func renameat2(from, to string, flags int) error {
	a, _ := syscall.BytePtrFromString(from)
	b, _ := syscall.BytePtrFromString(to)
	cwd := -100
	_, _, e := syscall.Syscall6(sysRenameat2, uintptr(cwd), uintptr(unsafe.Pointer(a)), uintptr(cwd), uintptr(unsafe.Pointer(b)), uintptr(flags), 0)
	if e != 0 {
		return e
	}
	return nil
}

func names(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return word(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	sort.Strings(all)
	return strings.Join(all, ",")
}

func open(name string, flags int, perm uint32) (*os.File, error) {
	fd, err := syscall.Open(name, flags|syscall.O_CLOEXEC, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// must gives a file or ends the program.
func must(f *os.File, err error) *os.File {
	fail(err)
	return f
}

type attempt struct {
	name string
	try  func() any
}

var long = strings.Repeat("n", 255)

var cases = []attempt{
	{"open: none there", func() any { _, err := os.Open("none"); return err }},
	{"open: created", func() any { touch("a", "x"); return mode("a") }},
	{"open: exclusive", func() any { touch("a", ""); _, err := open("a", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); return err }},
	{"open: exclusive on a link", func() any {
		fail(os.Symlink("none", "l"))
		_, err := open("l", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		return err
	}},
	{"open: truncated", func() any { touch("a", "long"); touch("a", "s"); return read("a") }},
	{"open: directory to write", func() any { _, err := open(".", os.O_WRONLY, 0); return err }},
	{"open: file as directory", func() any { touch("a", ""); _, err := open("a", syscall.O_DIRECTORY, 0); return err }},
	{"open: below a file", func() any { touch("a", ""); _, err := os.Open("a/b"); return err }},
	{"open: link not followed", func() any {
		fail(os.Symlink("a", "l"))
		_, err := open("l", syscall.O_NOFOLLOW, 0)
		return err
	}},
	{"open: links in a circle", func() any {
		fail(os.Symlink("m", "l"))
		fail(os.Symlink("l", "m"))
		_, err := os.Open("l")
		return err
	}},
	{"open: mode 0", func() any {
		f, err := open("a", os.O_CREATE|os.O_RDWR, 0)
		f.WriteString("x")
		return fmt.Sprint(word(err), mode("a"))
	}},
	{"open: appended", func() any {
		touch("a", "one")
		f := must(open("a", os.O_WRONLY|os.O_APPEND, 0))
		f.WriteString("two")
		f.Close()
		return read("a")
	}},
	{"open: umask", func() any { open("a", os.O_CREATE|os.O_RDWR, 0o777); return mode("a") }},
	{"name: 255 bytes", func() any { touch(long, "x"); return names(".") == long }},
	{"name: 256 bytes", func() any { _, err := os.Create(long + "n"); return err }},
	{"name: any bytes", func() any { touch("\xff\x01 *\n", "x"); return fmt.Sprintf("%q", names(".")) }},
	{"path: 4096 bytes", func() any { _, err := os.Open(strings.Repeat("a/", 2048)); return err }},
	{"mkdir", func() any { return fmt.Sprint(word(os.Mkdir("d", 0o755)), mode("d"), stat("d").Nlink, stat(".").Nlink) }},
	{"mkdir: exists", func() any { touch("a", ""); return os.Mkdir("a", 0o755) }},
	{"mkdir: no parent", func() any { return os.Mkdir("x/y", 0o755) }},
	{"mkdir: sticky and set-group-ID", func() any { fail(os.Mkdir("d", 0o755)); fail(syscall.Chmod("d", 0o3775)); return mode("d") }},
	{"mkdir: inherits set-group-ID", func() any {
		fail(os.Mkdir("d", 0o755))
		fail(syscall.Chmod("d", 0o2755))
		fail(os.Mkdir("d/e", 0o755))
		return mode("d/e")
	}},
	{"rmdir", func() any { fail(os.Mkdir("d", 0o755)); return fmt.Sprint(word(syscall.Rmdir("d")), stat(".").Nlink) }},
	{"rmdir: not empty", func() any { fail(os.MkdirAll("d/e", 0o755)); return syscall.Rmdir("d") }},
	{"rmdir: file", func() any { touch("a", ""); return syscall.Rmdir("a") }},
	{"rmdir: none", func() any { return syscall.Rmdir("x") }},
	{"rmdir: dot", func() any { return syscall.Rmdir(".") }},
	{"unlink", func() any { touch("a", ""); return fmt.Sprint(word(syscall.Unlink("a")), names(".")) }},
	{"unlink: directory", func() any { fail(os.Mkdir("d", 0o755)); return syscall.Unlink("d") }},
	{"unlink: none", func() any { return syscall.Unlink("x") }},
	{"unlink: open file lives on", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		f.WriteString("alive")
		fail(os.Remove("a"))
		f.WriteString("!")
		b := make([]byte, 10)
		n, _ := f.ReadAt(b, 0)
		fi, err := f.Stat()
		fail(err)
		return fmt.Sprint(string(b[:n]), fi.Size(), fi.Sys().(*syscall.Stat_t).Nlink)
	}},
	{"unlink: open file can be changed", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		fail(os.Remove("a"))
		e1, e2 := f.Chmod(0o600), f.Truncate(100)
		fi, _ := f.Stat()
		return fmt.Sprint(word(e1), word(e2), fi.Mode(), fi.Size())
	}},
	{"unlink: the name is free again", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		f.WriteString("old")
		fail(os.Remove("a"))
		touch("a", "new")
		b := make([]byte, 3)
		f.ReadAt(b, 0)
		return string(b) + read("a")
	}},
	{"rmdir: open directory", func() any {
		fail(os.Mkdir("d", 0o755))
		f := must(os.Open("d"))
		fail(os.Remove("d"))
		_, err := f.Readdirnames(-1)
		return err
	}},
	{"rename", func() any { touch("a", "x"); return fmt.Sprint(word(os.Rename("a", "b")), names("."), read("b")) }},
	{"rename: over a file", func() any {
		touch("a", "new")
		touch("b", "old")
		return fmt.Sprint(word(os.Rename("a", "b")), names("."), read("b"))
	}},
	{"rename: over an open file", func() any {
		touch("a", "new")
		touch("b", "old")
		f := must(os.Open("b"))
		fail(os.Rename("a", "b"))
		b := make([]byte, 3)
		f.ReadAt(b, 0)
		fi, _ := f.Stat()
		return fmt.Sprint(string(b), read("b"), fi.Sys().(*syscall.Stat_t).Nlink)
	}},
	{"rename: open file follows", func() any {
		touch("a", "x")
		f := must(open("a", os.O_RDWR, 0))
		fail(os.Rename("a", "b"))
		f.WriteString("yz")
		return read("b")
	}},
	{"rename: directory", func() any {
		fail(os.MkdirAll("d/e", 0o755))
		touch("d/e/f", "x")
		fail(os.Rename("d", "g"))
		return fmt.Sprint(names("."), read("g/e/f"), stat(".").Nlink)
	}},
	{"rename: directory between directories", func() any {
		fail(os.MkdirAll("d/e", 0o755))
		fail(os.Mkdir("g", 0o755))
		fail(os.Rename("d/e", "g/h"))
		return fmt.Sprint(names("g"), stat("d").Nlink, stat("g").Nlink)
	}},
	{"rename: directory over an empty one", func() any {
		fail(os.MkdirAll("d/e", 0o755))
		fail(os.Mkdir("g", 0o755))
		return fmt.Sprint(word(os.Rename("d", "g")), names("g"))
	}},
	{"rename: directory over a full one", func() any {
		fail(os.MkdirAll("d/e", 0o755))
		fail(os.MkdirAll("g/h", 0o755))
		return syscall.Rename("d", "g")
	}},
	{"rename: into itself", func() any { fail(os.Mkdir("d", 0o755)); return syscall.Rename("d", "d/e") }},
	{"rename: directory over a file", func() any { fail(os.Mkdir("d", 0o755)); touch("a", ""); return syscall.Rename("d", "a") }},
	{"rename: file over a directory", func() any { fail(os.Mkdir("d", 0o755)); touch("a", ""); return syscall.Rename("a", "d") }},
	{"rename: none", func() any { return syscall.Rename("x", "y") }},
	{"rename: two names of one file", func() any {
		touch("a", "x")
		fail(os.Link("a", "b"))
		return fmt.Sprint(word(syscall.Rename("a", "b")), names("."))
	}},
	{"rename: not over", func() any { touch("a", "a"); touch("b", "b"); return renameat2("a", "b", 1) }},
	{"rename: not over, free", func() any { touch("a", "a"); return fmt.Sprint(word(renameat2("a", "b", 1)), names(".")) }},
	{"rename: exchange", func() any {
		touch("a", "1")
		touch("b", "2")
		e := renameat2("a", "b", 2)
		return fmt.Sprint(word(e), read("a"), read("b"))
	}},
	{"rename: exchange file and directory", func() any {
		touch("a", "1")
		fail(os.MkdirAll("d/e", 0o755))
		e := renameat2("a", "d", 2)
		return fmt.Sprint(word(e), names("a"), read("d"))
	}},
	{"link", func() any {
		touch("a", "x")
		fail(os.Link("a", "b"))
		return fmt.Sprint(stat("a").Nlink, stat("a").Ino == stat("b").Ino, read("b"))
	}},
	{"link: count after unlink", func() any {
		touch("a", "x")
		fail(os.Link("a", "b"))
		fail(os.Remove("a"))
		return fmt.Sprint(stat("b").Nlink, read("b"))
	}},
	{"link: one name is written, the other read", func() any {
		touch("a", "x")
		fail(os.Link("a", "b"))
		read("b")
		touch("a", "longer")
		return read("b")
	}},
	{"link: exists", func() any { touch("a", ""); touch("b", ""); return syscall.Link("a", "b") }},
	{"link: directory", func() any { fail(os.Mkdir("d", 0o755)); return syscall.Link("d", "e") }},
	{"symlink", func() any {
		fail(os.Symlink("some/where", "l"))
		to, err := os.Readlink("l")
		return fmt.Sprint(to, word(err), stat("l").Size, stat("l").Mode&syscall.S_IFMT == syscall.S_IFLNK)
	}},
	{"symlink: exists", func() any { touch("a", ""); return syscall.Symlink("x", "a") }},
	{"symlink: followed", func() any { touch("a", "x"); fail(os.Symlink("a", "l")); return read("l") }},
	{"symlink: 4095 bytes", func() any {
		to := strings.Repeat("t", 4095)
		err := os.Symlink(to, "l")
		got, _ := os.Readlink("l")
		return fmt.Sprint(word(err), got == to)
	}},
	{"symlink: unlink takes the link", func() any {
		touch("a", "x")
		fail(os.Symlink("a", "l"))
		fail(os.Remove("l"))
		return names(".")
	}},
	{"readlink: file", func() any { touch("a", ""); _, err := os.Readlink("a"); return err }},
	{"mkfifo", func() any {
		fail(syscall.Mkfifo("f", 0o640))
		return mode("f")
	}},
	{"fifo: bytes pass", func() any {
		fail(syscall.Mkfifo("f", 0o640))
		go func() { os.WriteFile("f", []byte("through"), 0) }()
		return read("f")
	}},
	{"socket", func() any {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		fail(err)
		return fmt.Sprint(word(syscall.Bind(fd, &syscall.SockaddrUnix{Name: "s"})), mode("s"))
	}},
	{"device", func() any { return syscall.Mknod("null", syscall.S_IFCHR|0o666, 0x103) }},
	{"chmod", func() any { touch("a", ""); return fmt.Sprint(word(syscall.Chmod("a", 0o4751)), mode("a")) }},
	{"chmod: by a link", func() any {
		touch("a", "")
		fail(os.Symlink("a", "l"))
		fail(syscall.Chmod("l", 0o600))
		return mode("a")
	}},
	{"chmod: changes ctime", func() any {
		touch("a", "")
		before := stat("a").Ctim
		time.Sleep(20 * time.Millisecond)
		fail(syscall.Chmod("a", 0o600))
		return stat("a").Ctim != before
	}},
	{"chown: to itself", func() any { touch("a", ""); return os.Lchown("a", os.Getuid(), os.Getgid()) }},
	{"chown: to another", func() any {
		touch("a", "")
		e := os.Lchown("a", 1234, 5678)
		return fmt.Sprint(word(e), stat("a").Uid, stat("a").Gid)
	}},
	{"chown: a link", func() any {
		fail(os.Symlink("a", "l"))
		e := os.Lchown("l", 1234, 5678)
		return fmt.Sprint(word(e), stat("l").Uid)
	}},
	{"chown: takes set-user-ID", func() any {
		touch("a", "")
		fail(syscall.Chmod("a", 0o6755))
		e := os.Lchown("a", 1234, 5678)
		return fmt.Sprint(word(e), mode("a"))
	}},
	{"write: by another takes set-user-ID", func() any {
		touch("a", "")
		fail(syscall.Chmod("a", 0o6777))
		return asUser(1234, func() error { f := must(open("a", os.O_WRONLY, 0)); _, err := f.WriteString("x"); return err }) + mode("a")
	}},
	{"access: others' file", func() any {
		touch("a", "secret")
		fail(syscall.Chmod("a", 0o600))
		return asUser(1234, func() error { _, err := os.ReadFile("a"); return err })
	}},
	{"access: others' directory", func() any {
		fail(os.Mkdir("d", 0o700))
		touch("d/a", "")
		return asUser(1234, func() error { _, err := os.ReadFile("d/a"); return err })
	}},
	{"access: sticky directory", func() any {
		fail(os.Mkdir("d", 0o755))
		fail(syscall.Chmod("d", 0o1777))
		touch("d/a", "")
		return asUser(1234, func() error { return syscall.Unlink("d/a") })
	}},
	{"create: as another user", func() any {
		fail(os.Mkdir("d", 0o755))
		fail(syscall.Chmod("d", 0o777))
		e := asUser(1234, func() error { _, err := open("d/a", os.O_CREATE|os.O_RDWR, 0o640); return err })
		return fmt.Sprint(e, stat("d/a").Uid, mode("d/a"))
	}},
	{"truncate: shorter, longer", func() any {
		touch("a", "123456")
		fail(os.Truncate("a", 3))
		fail(os.Truncate("a", 5))
		return fmt.Sprintf("%q", read("a"))
	}},
	{"truncate: directory", func() any { return syscall.Truncate(".", 0) }},
	{"truncate: negative", func() any { touch("a", ""); return syscall.Truncate("a", -1) }},
	{"utimes: nanoseconds", func() any {
		touch("a", "")
		fail(syscall.UtimesNano("a", []syscall.Timespec{{Sec: 1, Nsec: 123456789}, {Sec: 2, Nsec: 987654321}}))
		return fmt.Sprint(stat("a").Atim, stat("a").Mtim)
	}},
	{"utimes: before 1970", func() any {
		touch("a", "")
		fail(syscall.UtimesNano("a", []syscall.Timespec{{Sec: -100}, {Sec: -100}}))
		return stat("a").Mtim.Sec
	}},
	{"times: write changes mtime", func() any {
		touch("a", "x")
		before := stat("a").Mtim
		time.Sleep(20 * time.Millisecond)
		f := must(open("a", os.O_WRONLY, 0))
		f.WriteString("y")
		f.Close()
		return stat("a").Mtim != before
	}},
	{"times: a name changes the directory's", func() any {
		before := stat(".").Mtim
		time.Sleep(20 * time.Millisecond)
		touch("a", "")
		return stat(".").Mtim != before
	}},
	{"sparse: a hole", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		f.WriteAt([]byte("end"), 1<<20)
		st := stat("a")
		return fmt.Sprint(st.Size, st.Blocks < 100)
	}},
	{"sparse: holes are found", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		f.WriteAt([]byte("end"), 1<<20)
		data, err := syscall.Seek(int(f.Fd()), 0, 3)
		hole, _ := syscall.Seek(int(f.Fd()), 0, 4)
		return fmt.Sprint(data, word(err), hole)
	}},
	{"sparse: beyond 4 GiB", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		_, err := f.WriteAt([]byte("far"), 5<<30)
		b := make([]byte, 3)
		f.ReadAt(b, 5<<30)
		return fmt.Sprint(word(err), string(b), stat("a").Size)
	}},
	{"fallocate", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		err := syscall.Fallocate(int(f.Fd()), 0, 0, 65536)
		return fmt.Sprint(word(err), stat("a").Size)
	}},
	{"fallocate: keeps the size", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		err := syscall.Fallocate(int(f.Fd()), 1, 0, 65536)
		return fmt.Sprint(word(err), stat("a").Size)
	}},
	{"fallocate: punches a hole", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644))
		f.Write(bytes.Repeat([]byte("x"), 65536))
		err := syscall.Fallocate(int(f.Fd()), 3, 4096, 8192)
		b := make([]byte, 2)
		f.ReadAt(b, 4095)
		return fmt.Sprintf("%s %q", word(err), b)
	}},
	{"copy_file_range", func() any {
		touch("a", "copied")
		from := must(os.Open("a"))
		to := must(open("b", os.O_CREATE|os.O_RDWR, 0o644))
		n, err := to.ReadFrom(from)
		return fmt.Sprint(n, word(err), read("b"))
	}},
	{"mmap: private", func() any {
		touch("a", "0123456789")
		f := must(os.Open("a"))
		m, err := syscall.Mmap(int(f.Fd()), 0, 10, syscall.PROT_READ, syscall.MAP_PRIVATE)
		fail(err)
		return string(m)
	}},
	{"mmap: shared, written", func() any {
		touch("a", "0123456789")
		f := must(open("a", os.O_RDWR, 0))
		m, err := syscall.Mmap(int(f.Fd()), 0, 10, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		fail(err)
		copy(m, "mapped")
		syscall.Syscall(syscall.SYS_MSYNC, uintptr(unsafe.Pointer(&m[0])), 10, 4)
		return read("a")
	}},
	{"mmap: sees a write", func() any {
		touch("a", "0123456789")
		f := must(open("a", os.O_RDWR, 0))
		m, err := syscall.Mmap(int(f.Fd()), 0, 10, syscall.PROT_READ, syscall.MAP_SHARED)
		fail(err)
		_ = m[0]
		f.WriteAt([]byte("seen"), 0)
		return string(m)
	}},
	{"mmap: of a removed file", func() any {
		touch("a", "0123456789")
		f := must(open("a", os.O_RDWR, 0))
		m, err := syscall.Mmap(int(f.Fd()), 0, 10, syscall.PROT_READ, syscall.MAP_SHARED)
		fail(err)
		fail(os.Remove("a"))
		f.Close()
		return string(m)
	}},
	{"lock: flock", func() any {
		touch("a", "")
		one, two := must(open("a", os.O_RDWR, 0)), must(open("a", os.O_RDWR, 0))
		fail(syscall.Flock(int(one.Fd()), syscall.LOCK_EX))
		e := syscall.Flock(int(two.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		one.Close()
		return fmt.Sprint(word(e), word(syscall.Flock(int(two.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)))
	}},
	{"lock: open file description", func() any {
		touch("a", "0123456789")
		one, two := must(open("a", os.O_RDWR, 0)), must(open("a", os.O_RDWR, 0))
		l := syscall.Flock_t{Type: syscall.F_WRLCK, Start: 2, Len: 3}
		fail(syscall.FcntlFlock(one.Fd(), 37, &l))
		l = syscall.Flock_t{Type: syscall.F_WRLCK, Start: 4, Len: 3}
		e := syscall.FcntlFlock(two.Fd(), 37, &l)
		l = syscall.Flock_t{Type: syscall.F_WRLCK, Start: 5, Len: 3}
		return fmt.Sprint(word(e), word(syscall.FcntlFlock(two.Fd(), 37, &l)))
	}},
	{"xattr: set and get", func() any {
		touch("a", "")
		e := syscall.Setxattr("a", "user.key", []byte("value"), 0)
		b := make([]byte, 100)
		n, e2 := syscall.Getxattr("a", "user.key", b)
		return fmt.Sprint(word(e), word(e2), string(b[:max(n, 0)]))
	}},
	{"xattr: list", func() any {
		touch("a", "")
		syscall.Setxattr("a", "user.one", []byte("1"), 0)
		syscall.Setxattr("a", "user.two", []byte("2"), 0)
		b := make([]byte, 100)
		n, e := syscall.Listxattr("a", b)
		all := strings.Split(strings.Trim(string(b[:max(n, 0)]), "\x00"), "\x00")
		sort.Strings(all)
		return fmt.Sprint(all, word(e))
	}},
	{"xattr: flags", func() any {
		touch("a", "")
		e := syscall.Setxattr("a", "user.key", nil, 2)
		syscall.Setxattr("a", "user.key", nil, 1)
		return fmt.Sprint(word(e), word(syscall.Setxattr("a", "user.key", nil, 1)))
	}},
	{"xattr: none", func() any { touch("a", ""); _, e := syscall.Getxattr("a", "user.none", make([]byte, 10)); return e }},
	{"xattr: too little room", func() any {
		touch("a", "")
		syscall.Setxattr("a", "user.key", []byte("value"), 0)
		_, e := syscall.Getxattr("a", "user.key", make([]byte, 2))
		return e
	}},
	{"xattr: removed", func() any {
		touch("a", "")
		syscall.Setxattr("a", "user.key", []byte("value"), 0)
		return fmt.Sprint(word(syscall.Removexattr("a", "user.key")), word(syscall.Removexattr("a", "user.key")))
	}},
	{"xattr: of a directory", func() any {
		b := make([]byte, 9)
		e := syscall.Setxattr(".", "user.key", []byte("value"), 0)
		n, _ := syscall.Getxattr(".", "user.key", b)
		return fmt.Sprint(word(e), n)
	}},
	{"xattr: trusted", func() any { touch("a", ""); return syscall.Setxattr("a", "trusted.key", []byte("v"), 0) }},
	{"fsync", func() any { f := must(open("a", os.O_CREATE|os.O_RDWR, 0o644)); f.WriteString("x"); return f.Sync() }},
	{"fsync: directory", func() any { return must(os.Open(".")).Sync() }},
	{"open: O_SYNC", func() any {
		f := must(open("a", os.O_CREATE|os.O_RDWR|syscall.O_SYNC, 0o644))
		_, err := f.WriteString("x")
		return fmt.Sprint(word(err), read("a"))
	}},
	{"open: O_DIRECT", func() any {
		touch("a", strings.Repeat("d", 8192))
		f, err := open("a", os.O_RDONLY|syscall.O_DIRECT, 0)
		if err != nil {
			return err
		}
		m, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		fail(err)
		n, err := f.ReadAt(m, 4096)
		return fmt.Sprint(n, word(err), m[0])
	}},
	{"statfs", func() any {
		var st syscall.Statfs_t
		e := syscall.Statfs(".", &st)
		return fmt.Sprint(word(e), st.Blocks > 0, st.Bavail <= st.Blocks, st.Namelen)
	}},
	{"readdir: many entries", func() any {
		for i := range many() {
			fd, err := syscall.Open(fmt.Sprintf("entry-%05d", i), syscall.O_CREAT|syscall.O_WRONLY, 0o644)
			fail(err)
			syscall.Close(fd)
		}
		seen := strings.Split(names("."), ",")
		return fmt.Sprint(len(seen), seen[0], seen[len(seen)-1])
	}},
	{"readdir: while it is emptied", func() any {
		for i := range many() / 5 {
			touch(fmt.Sprintf("e%04d", i), "")
		}
		f := must(os.Open("."))
		for {
			some, _ := f.Readdirnames(100)
			if len(some) == 0 {
				break
			}
			for _, name := range some {
				os.Remove(name)
			}
		}
		return names(".")
	}},
	{"readdir: types", func() any {
		fail(os.Mkdir("d", 0o755))
		fail(os.Symlink("x", "l"))
		touch("a", "")
		entries, err := os.ReadDir(".")
		fail(err)
		var all []string
		for _, e := range entries {
			all = append(all, e.Name()+":"+e.Type().String())
		}
		return strings.Join(all, " ")
	}},
	{"path: up and down", func() any { fail(os.MkdirAll("d/e", 0o755)); touch("a", "x"); return read("d/e/../../a") }},
	{"cwd: of a moved directory", func() any {
		fail(os.MkdirAll("d/e", 0o755))
		fail(os.Chdir("d/e"))
		fail(os.Rename("../../d", "../../m"))
		touch("here", "x")
		return read("../../m/e/here")
	}},
}

// asUser runs f with another user's rights on files.
func asUser(uid int, f func() error) string {
	if os.Getuid() != 0 {
		return "not root "
	}
	syscall.Setfsgid(uid)
	syscall.Setfsuid(uid)
	err := f()
	syscall.Setfsuid(0)
	syscall.Setfsgid(0)
	return word(err) + " "
}

// fsx does random things to a file and to its model in memory, and compares.
func fsx(dir string, seed, count int) {
	random := rand.New(rand.NewSource(int64(seed)))
	const limit = 256 << 10
	path := filepath.Join(dir, fmt.Sprintf("fsx-%d", seed))
	f := must(open(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644))
	defer os.Remove(path)
	model := []byte{}
	grow := func(to int) {
		if to > len(model) {
			model = append(model, make([]byte, to-len(model))...)
		}
	}
	check := func(i int, what string, got, want []byte) {
		if !bytes.Equal(got, want) {
			fail(fmt.Errorf("operation %d (%s): %d bytes differ from the %d expected", i, what, len(got), len(want)))
		}
	}
	for i := range count {
		at, size := random.Intn(limit), 1+random.Intn(32<<10)
		switch random.Intn(8) {
		case 0, 1:
			b := make([]byte, size)
			random.Read(b)
			_, err := f.WriteAt(b, int64(at))
			fail(err)
			grow(at + size)
			copy(model[at:], b)
		case 2, 3:
			b := make([]byte, size)
			n, _ := f.ReadAt(b, int64(at))
			want := []byte{}
			if at < len(model) {
				want = model[at:min(len(model), at+size)]
			}
			check(i, "read", b[:n], want)
		case 4:
			fail(f.Truncate(int64(at)))
			grow(at)
			model = model[:at]
		case 5:
			if len(model) == 0 {
				continue
			}
			m, err := syscall.Mmap(int(f.Fd()), 0, len(model), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
			fail(err)
			check(i, "mapped", m, model)
			at %= len(model)
			m[at], model[at] = 'm', 'm'
			fail(syscall.Munmap(m))
		case 6:
			fail(f.Close())
			f = must(open(path, os.O_RDWR, 0))
		case 7:
			if at+size > len(model) {
				continue
			}
			if syscall.Fallocate(int(f.Fd()), 3, int64(at), int64(size)) == nil {
				clear(model[at : at+size])
			}
		}
		fi, err := f.Stat()
		fail(err)
		if fi.Size() != int64(len(model)) {
			fail(fmt.Errorf("operation %d: the file has %d bytes, not %d", i, fi.Size(), len(model)))
		}
	}
	fmt.Printf("fsx %d: %d operations\n", seed, count)
}

// watch prints events in a directory and in those below it until none has come for a while.
func watch(dir string, idle time.Duration) {
	fd, err := syscall.InotifyInit1(0)
	fail(err)
	places := map[int32]string{}
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			wd, err := syscall.InotifyAddWatch(fd, path, syscall.IN_ALL_EVENTS&^(syscall.IN_ACCESS|syscall.IN_OPEN|syscall.IN_CLOSE_NOWRITE))
			fail(err)
			rel, _ := filepath.Rel(dir, path)
			places[int32(wd)] = rel
		}
		return nil
	})
	fmt.Println("ready")
	time.AfterFunc(idle, func() { os.Exit(0) })
	b := make([]byte, 64<<10)
	for {
		n, err := syscall.Read(fd, b)
		fail(err)
		for e := b[:n]; len(e) >= 16; {
			size := 16 + int(binary.NativeEndian.Uint32(e[12:]))
			name := strings.TrimRight(string(e[16:size]), "\x00")
			place := places[int32(binary.NativeEndian.Uint32(e))]
			fmt.Printf("%s %s\n", eventName(binary.NativeEndian.Uint32(e[4:])), filepath.Join(place, name))
			e = e[size:]
		}
	}
}

func eventName(mask uint32) string {
	for bit, name := range map[uint32]string{
		syscall.IN_MODIFY: "modify", syscall.IN_ATTRIB: "attrib", syscall.IN_CLOSE_WRITE: "closed", syscall.IN_CREATE: "create",
		syscall.IN_DELETE: "delete", syscall.IN_MOVED_FROM: "from", syscall.IN_MOVED_TO: "to", syscall.IN_DELETE_SELF: "deleted", syscall.IN_MOVE_SELF: "moved",
	} {
		if mask&bit != 0 {
			return name
		}
	}
	return fmt.Sprintf("%#x", mask)
}

// tree makes a tree of small files, a hundred to a directory, and looks at all of it.
func tree(dir string, count int) {
	begin := time.Now()
	for i := range count {
		d := filepath.Join(dir, fmt.Sprintf("d%04d", i/100))
		if i%100 == 0 {
			fail(os.MkdirAll(d, 0o755))
		}
		touch(filepath.Join(d, fmt.Sprintf("f%02d", i%100)), strings.Repeat("x", 100+i%1000))
	}
	made := time.Now()
	files, size := 0, int64(0)
	filepath.Walk(dir, func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			files++
			size += fi.Size()
		}
		return nil
	})
	walked := time.Now()
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			read(path)
		}
		return nil
	})
	seen := time.Now()
	fail(os.RemoveAll(filepath.Join(dir)))
	fmt.Printf("files=%d bytes=%d make=%d walk=%d read=%d remove=%d\n", files, size, made.Sub(begin).Milliseconds(),
		walked.Sub(made).Milliseconds(), seen.Sub(walked).Milliseconds(), time.Since(seen).Milliseconds())
}

// many is how many entries make a full directory: PROBE_ENTRIES, else 10,000.
func many() int {
	if n, err := strconv.Atoi(os.Getenv("PROBE_ENTRIES")); err == nil {
		return n
	}
	return 10_000
}
