package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// count adds one to a number in a file, again and again, as do others at the same time: each has a lock meanwhile, of a file
// or (of none) a directory that it has made. The number is written in place and keeps its length, so that only what is in the
// file tells that it was changed.
func count(dir string, times int, locked string) {
	file := filepath.Join(dir, "counter")
	lock, unlock := byDirectory(filepath.Join(dir, "lock"))
	if locked != "" {
		lock, unlock = byFile(locked)
	}
	for range times {
		lock()
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
		fail(err)
		text := make([]byte, 8)
		n, _ := f.Read(text) // none at first
		now, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		_, err = f.WriteAt([]byte(fmt.Sprintf("%8d", now+1)), 0)
		fail(errors.Join(err, f.Close()))
		unlock()
	}
	if locked != "" {
		fmt.Println("had it")
	}
}

func byDirectory(path string) (lock, unlock func()) {
	lock = func() {
		for err := os.Mkdir(path, 0o700); err != nil; err = os.Mkdir(path, 0o700) {
			if !errors.Is(err, os.ErrExist) {
				fail(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return lock, func() { fail(os.Remove(path)) }
}

func byFile(path string) (lock, unlock func()) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	fail(err)
	how := func(kind int) func() {
		return func() {
			err := syscall.EINTR
			for err == syscall.EINTR {
				err, _ = syscall.Flock(int(f.Fd()), kind).(syscall.Errno)
			}
			if err != 0 {
				fail(err)
			}
		}
	}
	return how(syscall.LOCK_EX), how(syscall.LOCK_UN)
}

// appends writes lines to the end of a file that others write to as well.
func appends(file, who string, times int) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	fail(err)
	for i := range times {
		_, err := fmt.Fprintf(f, "%s %d\n", who, i)
		fail(err)
	}
	fail(f.Close())
}

// acknowledge writes files for ever, each aside and renamed, and says a number once file, name and a line of a log are synced.
// It goes on behind the last line of the log.
func acknowledge(dir, who string) {
	d, err := os.Open(dir)
	fail(err)
	log, err := os.OpenFile(filepath.Join(dir, who+".log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	fail(err)
	before, err := os.ReadFile(log.Name())
	fail(err)
	for i := bytes.Count(before, []byte("\n")); ; i++ {
		part := filepath.Join(dir, ".part-"+who)
		f, err := os.Create(part)
		fail(err)
		_, err = f.WriteString(strings.Repeat(fmt.Sprintln(i), (i%40+1)*100))
		fail(errors.Join(err, f.Sync(), f.Close()))
		fail(errors.Join(os.Rename(part, filepath.Join(dir, fmt.Sprintf("%s-%d", who, i%20))), d.Sync()))
		_, err = fmt.Fprintln(log, i)
		fail(errors.Join(err, log.Sync()))
		fmt.Println(i)
	}
}

// mapped writes text into a file's pages ("-": nothing), and shows what is in them once others have put want there.
func mapped(file, text, want string) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	fail(err)
	fail(f.Truncate(4096))
	pages, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	fail(err)
	if text != "-" {
		copy(pages, text)
		fail(f.Sync())
	}
	for end := time.Now().Add(2 * time.Minute); !bytes.HasPrefix(pages, []byte(want)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			fail(fmt.Errorf("the pages have %q", pages[:32]))
		}
	}
	fmt.Println("seen " + want)
}

// locked takes a lock of a file and holds it until standard input ends.
func locked(file string) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	fail(err)
	fmt.Println(word(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)))
	_, _ = os.Stdin.Read(make([]byte, 1)) // its end
}
