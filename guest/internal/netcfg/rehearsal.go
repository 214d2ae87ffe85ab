package netcfg

import (
	"io"
	"os"
	"path/filepath"
	"syscall"

	"vmsan/guest/internal/proc"
)

const (
	// maxPrograms bounds the programs of a rehearsal.
	maxPrograms = 16
	// readAhead is how much of each file is read, in bytes: what a program's start needs of it.
	readAhead = 4 << 20
)

// atStart are files that nearly every program of an image is started with. None of an image need be there.
var atStart = []string{
	"/lib64/ld-linux-*.so.*", "/lib/ld-linux-*.so.*", "/lib/ld-musl-*.so.1",
	"/lib/*-linux-gnu/libc.so.6", "/lib64/libc.so.6",
	"/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/bin/sh",
}

// rehearse reads what the first command is likely to need, so that a clone has it in its memory, and writes
// back what is to be written, so that a clone does not begin with that. No program of the image is run.
func rehearse(r *Rehearsal) {
	for _, pattern := range atStart {
		paths, _ := filepath.Glob(pattern) // the patterns are right
		for _, path := range paths {
			read(path)
		}
	}
	for _, name := range r.Programs {
		if path, err := proc.Lookup(name, proc.DefaultPath, "/"); err == nil {
			read(path)
		}
	}
	syscall.Sync()
}

// read brings a file's beginning into the page cache.
func read(path string) {
	f, ok := openAhead("/", path)
	if !ok {
		return
	}
	defer f.Close()
	_, _ = io.CopyN(io.Discard, f, readAhead) // shorter, or it cannot be read: then it stays out
}

// openAhead opens a file of the root that can be read to its end. The image says what is there: opening what is no
// regular file may wait, and so may reading what is one by name alone (a link to /proc/kmsg), until the template is
// given up.
func openAhead(root, path string) (*os.File, bool) {
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	var of, at syscall.Statfs_t
	if syscall.Statfs(root, &of) != nil || syscall.Fstatfs(int(f.Fd()), &at) != nil || at.Type != of.Type {
		f.Close()
		return nil, false
	}
	return f, true
}
