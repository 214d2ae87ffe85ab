package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// work does one kind of work in a directory and says how many seconds it took. What has to be
// brought from the host is forgotten before.
func work(dir, what string, count int) {
	todo, ok := works[what]
	if !ok {
		fail(fmt.Errorf("no such work: %s", what))
	}
	if todo.cold {
		fail(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200))
	}
	begun := time.Now()
	todo.run(dir, count)
	fmt.Println(time.Since(begun).Seconds())
}

var works = map[string]struct {
	run  func(dir string, count int)
	cold bool
}{
	"make":   {run: makeSmall},
	"look":   {run: look, cold: true},
	"again":  {run: look},
	"read":   {run: readSmall, cold: true},
	"remove": {run: func(dir string, _ int) { fail(os.RemoveAll(filepath.Join(dir, "small"))) }},
	"write":  {run: writeLarge},
	"fetch":  {run: readLarge, cold: true},
	"reread": {run: readLarge},
}

// smallSize is the size of a small file in bytes.
const smallSize = 4096

func smallFile(dir string, i int) string {
	return filepath.Join(dir, "small", strconv.Itoa(i/50), fmt.Sprintf("file-%d", i))
}

func makeSmall(dir string, count int) {
	content := bytes.Repeat([]byte("small..."), smallSize/8)
	for i := range count {
		if i%50 == 0 {
			fail(os.MkdirAll(filepath.Dir(smallFile(dir, i)), 0o755))
		}
		fail(os.WriteFile(smallFile(dir, i), content, 0o644))
	}
}

func look(dir string, count int) {
	seen := 0
	fail(filepath.Walk(filepath.Join(dir, "small"), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			seen++
		}
		return err
	}))
	if seen != count {
		fail(fmt.Errorf("%d files instead of %d", seen, count))
	}
}

func readSmall(dir string, count int) {
	for i := range count {
		b, err := os.ReadFile(smallFile(dir, i))
		fail(err)
		if len(b) != smallSize {
			fail(fmt.Errorf("%d bytes", len(b)))
		}
	}
}

// writeLarge writes a file of so many MiB and waits until the host has it.
func writeLarge(dir string, mib int) {
	f := must(os.Create(filepath.Join(dir, "large")))
	piece := bytes.Repeat([]byte("large..."), 1<<17)
	for range mib {
		_, err := f.Write(piece)
		fail(err)
	}
	fail(f.Sync())
	fail(f.Close())
}

func readLarge(dir string, mib int) {
	f := must(os.Open(filepath.Join(dir, "large")))
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 128<<10))
	fail(err)
	if got != int64(mib)<<20 {
		fail(fmt.Errorf("%d bytes", got))
	}
	fail(f.Close())
}
