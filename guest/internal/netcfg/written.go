package netcfg

import (
	"io"
	"os"
	"strings"
	"syscall"
)

// maxKept bounds a file in which lines of a user's own are looked for, in bytes.
const maxKept = 16 << 20

// putFile makes dir/name a file with that content.
type putFile func(dir, name, content string, mode uint32) error

// text is a file that the agent writes and programs read.
type text struct {
	dir, name, content string
	mode               uint32
	// lines: it is a list to which users add lines of their own.
	lines bool
}

// write puts a file where it belongs, unless that is what was written there last: what a user has made of it since
// then stays. Where other content is due, the lines that a user has added to a list stay.
func (c *Config) write(t text, put putFile) error {
	last, known := c.written[t.name]
	if known && last == t.content {
		return nil
	}
	content := t.content
	// Nobody has seen a rehearsal's placeholders.
	if known && t.lines && !c.rehearsed {
		content += added(t.dir+"/"+t.name, last)
	}
	if err := put(t.dir, t.name, content, t.mode); err != nil {
		return err
	}
	if c.written == nil {
		c.written = map[string]string{}
	}
	c.written[t.name] = t.content
	return nil
}

// added gives the lines of a regular file that are not in the text that was written there last.
func added(path, last string) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxKept {
		return ""
	}
	now, err := io.ReadAll(f)
	if err != nil || string(now) == last {
		return ""
	}
	known := map[string]bool{}
	for line := range strings.Lines(last) {
		known[strings.TrimSpace(line)] = true
	}
	var own strings.Builder
	for line := range strings.Lines(string(now)) {
		if !known[strings.TrimSpace(line)] {
			own.WriteString(line)
		}
	}
	return own.String()
}
