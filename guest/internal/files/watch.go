package files

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/wire"
)

// maxWatches bounds the directories of one watch.
const maxWatches = 100_000

const watchMask = syscall.IN_CREATE | syscall.IN_MODIFY | syscall.IN_ATTRIB | syscall.IN_DELETE | syscall.IN_MOVED_FROM |
	syscall.IN_MOVED_TO | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_EXCL_UNLINK

type watchEvent struct {
	Event string `json:"event"`
	Path  string `json:"path,omitempty"` // base64
	Dir   bool   `json:"dir"`
	// Moved: a "create" that came from elsewhere, a "remove" that went elsewhere.
	Moved bool `json:"moved,omitempty"`
}

// Watcher turns inotify into JSON lines.
type Watcher struct {
	file      *os.File
	root      string
	recursive bool
	paths     map[int32]string
	byPath    map[string]int32
	out       io.Writer
}

// NewWatcher begins to watch path.
func NewWatcher(path string, recursive bool) (*Watcher, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, wire.Errorf(wire.CodeLimit, "%.256q cannot be watched.", path).Because(err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "inotify"), root: path, recursive: recursive, paths: map[int32]string{}, byPath: map[string]int32{}}
	if path != "/" {
		w.root = strings.TrimRight(path, "/")
	}
	if err := w.add(w.root, true); err != nil {
		_ = w.file.Close() // nothing was watched
		return nil, err
	}
	return w, nil
}

// Close ends Run.
func (w *Watcher) Close() { _ = w.file.Close() }

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// add watches path and, if wanted, the directories below it.
func (w *Watcher) add(path string, top bool) error {
	mask := uint32(watchMask)
	if !top {
		mask |= syscall.IN_DONT_FOLLOW | syscall.IN_ONLYDIR
	}
	if len(w.paths) >= maxWatches {
		return wire.Errorf(wire.CodeLimit, "More than %d directories below %.256q cannot be watched.", maxWatches, w.root)
	}
	var wd int
	raw, err := w.file.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { wd, err = syscall.InotifyAddWatch(int(fd), path, mask) })
		err = errors.Join(err, cerr)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return wire.Errorf(wire.CodeLimit, "The guest has no watches left for %.256q.", path).Because(err).
			Remedy("Raise fs.inotify.max_user_watches in the guest, or watch less.")
	}
	if err != nil {
		if top {
			return fileError(err, "%.256q cannot be watched.", path)
		}
		// A directory that is gone again or may not be read.
		return nil
	}
	w.paths[int32(wd)], w.byPath[path] = path, int32(wd)
	if !w.recursive {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil // as above
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := w.add(join(path, e.Name()), false); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Watcher) emit(event, path string, dir, moved bool) error {
	e := watchEvent{Event: event, Dir: dir, Moved: moved}
	if path != "" {
		e.Path = base64.StdEncoding.EncodeToString([]byte(path))
	}
	_, err := fmt.Fprintf(w.out, "%s\n", wire.JSON(e))
	return err
}

// Run writes events to out until the watcher is closed or the watched thing is gone.
func (w *Watcher) Run(out io.Writer) error {
	w.out = out
	if _, err := io.WriteString(out, "{\"event\":\"ready\"}\n"); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return err
		}
		for at := 0; at+syscall.SizeofInotifyEvent <= n; {
			e := (*syscall.InotifyEvent)(unsafe.Pointer(&buf[at]))
			end := at + syscall.SizeofInotifyEvent + int(e.Len)
			name := strings.TrimRight(string(buf[at+syscall.SizeofInotifyEvent:end]), "\x00")
			at = end
			if gone, err := w.event(e.Wd, e.Mask, name); err != nil || gone {
				return err
			}
		}
	}
}

// event handles one event; gone means that the watch's root is no more.
func (w *Watcher) event(wd int32, mask uint32, name string) (gone bool, err error) {
	if mask&syscall.IN_Q_OVERFLOW != 0 {
		return false, w.emit("overflow", "", false, false)
	}
	dir, known := w.paths[wd]
	if !known {
		return false, nil
	}
	path := dir
	if name != "" {
		path = join(dir, name)
	}
	isDir := mask&syscall.IN_ISDIR != 0
	switch {
	case mask&(syscall.IN_CREATE|syscall.IN_MOVED_TO) != 0:
		if err := w.emit("create", path, isDir, mask&syscall.IN_MOVED_TO != 0); err != nil || !isDir || !w.recursive {
			return false, err
		}
		return false, w.fresh(path)
	case mask&(syscall.IN_DELETE|syscall.IN_MOVED_FROM) != 0:
		if isDir {
			w.forget(path)
		}
		return false, w.emit("remove", path, isDir, mask&syscall.IN_MOVED_FROM != 0)
	case mask&syscall.IN_MODIFY != 0:
		return false, w.emit("modify", path, isDir, false)
	case mask&syscall.IN_ATTRIB != 0:
		if name == "" && path != w.root {
			return false, nil // its parent tells the same
		}
		return false, w.emit("attrib", path, isDir, false)
	case mask&(syscall.IN_DELETE_SELF|syscall.IN_MOVE_SELF) != 0 && path == w.root:
		return true, w.emit("remove", path, isDir, mask&syscall.IN_MOVE_SELF != 0)
	case mask&syscall.IN_IGNORED != 0:
		delete(w.paths, wd)
		if w.byPath[dir] == wd {
			delete(w.byPath, dir)
		}
		return path == w.root, nil
	}
	return false, nil
}

// fresh watches a new directory and tells what was in it before the watch was.
func (w *Watcher) fresh(path string) error {
	recursive := w.recursive
	w.recursive = false
	err := w.add(path, false)
	w.recursive = recursive
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil // it is gone again
	}
	for _, e := range entries {
		sub := join(path, e.Name())
		if err := w.emit("create", sub, e.IsDir(), false); err != nil {
			return err
		}
		if e.IsDir() {
			if err := w.fresh(sub); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget drops the watches of a directory that was moved away.
func (w *Watcher) forget(path string) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	for p, wd := range w.byPath {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(w.byPath, p)
			delete(w.paths, wd)
			// A deleted directory's watch is gone by itself.
			_ = raw.Control(func(fd uintptr) { _, _ = syscall.InotifyRmWatch(int(fd), uint32(wd)) })
		}
	}
}
