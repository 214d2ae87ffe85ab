package shares

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxWatched bounds the inodes that are listed; beyond it everything counts as watched.
const maxWatched = 16_000

// watchers lists the inodes of the mount that processes watch by inotify, for the host: one
// byte that is 1 when it has to be taken for all, then eight for each.
func (m *mount) watchers() []byte {
	var st syscall.Stat_t
	if err := syscall.Fstat(m.root, &st); err != nil {
		return []byte{0}
	}
	device := fmt.Sprintf("sdev:%x", st.Dev>>8&0xfff<<20|st.Dev&0xff|st.Dev>>12&0xfff00)
	inodes := map[uint64]bool{}
	links, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return []byte{1}
	}
	for _, dir := range links {
		names, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, name := range names {
			to, err := os.Readlink(filepath.Join(dir, name.Name()))
			if err != nil || to != "anon_inode:inotify" && to != "anon_inode:[fanotify]" {
				continue
			}
			if to != "anon_inode:inotify" {
				return []byte{1} // it may watch whole mounts
			}
			collect(filepath.Join(filepath.Dir(dir), "fdinfo", name.Name()), device, inodes)
		}
	}
	if len(inodes) > maxWatched {
		return []byte{1}
	}
	list := []byte{0}
	for ino := range inodes {
		list = binary.LittleEndian.AppendUint64(list, ino)
	}
	return list
}

// collect reads the lines `inotify wd:1 ino:2f sdev:31 …` of one descriptor.
func collect(path, device string, to map[uint64]bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return // it has ended
	}
	for _, line := range strings.Split(string(b), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != "inotify" || fields[3] != device {
			continue
		}
		if ino, err := strconv.ParseUint(strings.TrimPrefix(fields[2], "ino:"), 16, 64); err == nil {
			to[ino] = true
		}
	}
}
