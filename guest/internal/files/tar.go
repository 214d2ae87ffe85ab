package files

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// TarOptions of kind tar.
type TarOptions struct {
	// Follow the path itself, if it is a link.
	Follow bool
	// Attributes has users' extended attributes in the archive.
	Attributes bool
}

// Tar writes a pax archive of path to out. Entries that cannot be read are
// named on problems, one a line; the number of them is returned. The error is
// one of out's, or says that path itself cannot be read.
func Tar(path string, opts TarOptions, out, problems io.Writer) (int, error) {
	// Headers are short writes, each of which would be a turn of the stream.
	buffered := bufio.NewWriterSize(out, 128<<10)
	t := &tarrer{
		w: &tarWriter{w: buffered}, problems: problems, links: map[[2]uint64]string{}, buf: make([]byte, copyBuffer),
		attributes: opts.Attributes,
	}
	clean := filepath.Clean(path)
	parent, err := os.OpenFile(filepath.Dir(clean), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrPermission) {
		// A directory may be passed through without being listed.
		const oPath = 0x200000
		parent, err = os.OpenFile(filepath.Dir(clean), oPath|syscall.O_DIRECTORY, 0)
	}
	if err != nil {
		return 0, fileError(err, "%.256q cannot be read.", path)
	}
	defer parent.Close()
	base := filepath.Base(clean)
	source := base
	if clean == "/" {
		base, source = ".", "."
	} else if opts.Follow {
		if source, err = filepath.EvalSymlinks(clean); err != nil {
			return 0, fileError(err, "%.256q cannot be read.", path)
		}
		p, err := os.OpenFile(filepath.Dir(source), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return 0, fileError(err, "%.256q cannot be read.", path)
		}
		defer p.Close()
		parent, source = p, filepath.Base(source)
		if source == "/" {
			source = "."
		}
	}
	if err := statAt(parent, source, &syscall.Stat_t{}); err != nil {
		return 0, fileError(err, "%.256q cannot be read.", path)
	}
	if err := t.add(parent, source, base, 0); err != nil {
		return t.failed, err
	}
	if err := t.w.end(); err != nil {
		return t.failed, err
	}
	return t.failed, buffered.Flush()
}

type tarrer struct {
	w        *tarWriter
	problems io.Writer
	failed   int
	links    map[[2]uint64]string
	buf      []byte
	// attributes: those of users are kept.
	attributes bool
	// whole holds one small file after the other.
	whole []byte
}

// problem reports an entry that is left out or damaged; only a failing writer ends the archive.
func (t *tarrer) problem(name string, why any, counts bool) error {
	if counts {
		t.failed++
	}
	_, err := fmt.Fprintf(t.problems, "%s: %v\n", name, why)
	return err
}

func errnoOf(err error) any {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e.Error()
	}
	return err
}

// add writes the entry called source in dir under name, and what is below it.
func (t *tarrer) add(dir *os.File, source, name string, depth int) error {
	var st syscall.Stat_t
	if err := statAt(dir, source, &st); err != nil {
		return t.problem(name, errnoOf(err), true)
	}
	h := &tarEntry{name: name, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, sec: int64(st.Mtim.Sec), nsec: int64(st.Mtim.Nsec)}
	kind := st.Mode & syscall.S_IFMT
	if t.attributes && (kind == syscall.S_IFDIR || kind == syscall.S_IFREG) {
		h.attributes = readAttributes(at(dir, source), userAttributes)
	}
	if kind != syscall.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := t.links[key]; ok {
			h.typ, h.link = '1', first
			return t.w.header(h)
		}
		before := t.failed
		defer func() {
			if t.failed == before {
				t.links[key] = name
			}
		}()
	}
	switch kind {
	case syscall.S_IFDIR:
		return t.addDir(dir, source, h, depth)
	case syscall.S_IFREG:
		return t.addFile(dir, source, h, &st)
	case syscall.S_IFLNK:
		to, err := os.Readlink(at(dir, source))
		if err != nil {
			return t.problem(name, errnoOf(err), true)
		}
		h.typ, h.link = '2', to
	case syscall.S_IFCHR, syscall.S_IFBLK:
		h.typ = '3'
		if kind == syscall.S_IFBLK {
			h.typ = '4'
		}
		h.major = uint32(uint64(st.Rdev)>>8&0xfff | uint64(st.Rdev)>>32&^0xfff)
		h.minor = uint32(uint64(st.Rdev)&0xff | uint64(st.Rdev)>>12&^0xff)
	case syscall.S_IFIFO:
		h.typ = '6'
	default:
		return t.problem(name, "is a socket and left out", false)
	}
	return t.w.header(h)
}

func (t *tarrer) addDir(dir *os.File, source string, h *tarEntry, depth int) error {
	h.typ = '5'
	if depth >= maxDepth {
		return t.problem(h.name, "is too deep", true)
	}
	d, derr := openDir(dir, source)
	prefix := h.name + "/"
	h.name = prefix
	if err := t.w.header(h); err != nil {
		return err
	}
	if derr != nil {
		return t.problem(prefix, errnoOf(derr), true)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		if err := t.problem(prefix, errnoOf(err), true); err != nil {
			return err
		}
	}
	sort.Strings(names)
	if prefix == "./" {
		prefix = ""
	}
	for _, n := range names {
		if len(prefix)+len(n) > maxName {
			if err := t.problem(prefix+n, "the name is too long", true); err != nil {
				return err
			}
			continue
		}
		if err := t.add(d, n, prefix+n, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// extent is a part of a file that has data.
type extent struct{ offset, length int64 }

func (t *tarrer) addFile(dir *os.File, source string, h *tarEntry, st *syscall.Stat_t) error {
	h.typ = '0'
	fd, err := openAt(dir, source, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return t.problem(h.name, errnoOf(err), true)
	}
	defer syscall.Close(fd)
	h.size = st.Size
	sparse := st.Blocks*512 < st.Size
	if st.Size <= readFirst {
		whole, err := t.readWhole(fd, st.Size)
		if err != nil {
			return t.problem(h.name, errnoOf(err), true)
		}
		if !sparse || int64(len(whole)) != st.Size {
			return t.addWhole(h, whole)
		}
	}
	data := []extent{{0, st.Size}}
	if sparse {
		if found, ok := extents(fd, st.Size); ok {
			data = found
			h.sparse = true
			h.extents = data
		}
	}
	if err := t.w.header(h); err != nil {
		return err
	}
	var why any
	for _, e := range data {
		n, werr, rerr := t.copy(fd, e)
		if werr != nil {
			return werr
		}
		if n < e.length {
			why = "has become shorter while it was read"
			if rerr != nil {
				why = errnoOf(rerr)
			}
			if err := t.w.zeros(e.length - n); err != nil {
				return err
			}
		}
	}
	if err := t.w.pad(); err != nil {
		return err
	}
	if why != nil {
		return t.problem(h.name, why, true)
	}
	return nil
}

// readFirst is the length up to which files are read before their header is
// written: what was read is their length. That of files in /proc and /sys is no other.
const readFirst = 1 << 20

// maxUnsaid bounds a file that is longer than it is said to be.
const maxUnsaid = 64 << 20

// readWhole reads a file just opened to its end, whatever length it is said to have. What it gives holds until the
// next call.
func (t *tarrer) readWhole(fd int, said int64) ([]byte, error) {
	b := slices.Grow(t.whole[:0], int(said)+512)
	for {
		n, err := syscall.Read(fd, b[len(b):cap(b)])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		b = b[:len(b)+n]
		if len(b) > maxUnsaid {
			return nil, fmt.Errorf("goes on behind %d bytes, longer than it is said to be", maxUnsaid)
		}
		b = slices.Grow(b, 512)
	}
	if cap(b) <= 2*readFirst {
		t.whole = b
	}
	return b, nil
}

// addWhole writes a file that has been read.
func (t *tarrer) addWhole(h *tarEntry, content []byte) error {
	h.size = int64(len(content))
	if err := t.w.header(h); err != nil {
		return err
	}
	if _, err := t.w.Write(content); err != nil {
		return err
	}
	return t.w.pad()
}

// copy writes an extent; read errors and write errors differ in their meaning.
func (t *tarrer) copy(fd int, e extent) (done int64, werr, rerr error) {
	for done < e.length {
		n, err := readAt(fd, t.buf[:min(int64(len(t.buf)), e.length-done)], e.offset+done)
		if n == 0 || err != nil {
			return done, nil, err
		}
		if _, err := t.w.Write(t.buf[:n]); err != nil {
			return done, err, nil
		}
		done += int64(n)
	}
	return done, nil, nil
}

// extents asks the file system where a file has data; false if it cannot tell.
func extents(fd int, size int64) ([]extent, bool) {
	const seekData, seekHole = 3, 4
	var out []extent
	for pos := int64(0); pos < size; {
		begin, err := syscall.Seek(fd, pos, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil || len(out) > 1<<20 {
			return nil, false
		}
		end, err := syscall.Seek(fd, begin, seekHole)
		if err != nil {
			return nil, false
		}
		end = min(end, size)
		out = append(out, extent{begin, end - begin})
		pos = end
	}
	// By convention the map ends with the file's end.
	if len(out) == 0 || out[len(out)-1].offset+out[len(out)-1].length < size {
		out = append(out, extent{size, 0})
	}
	return out, true
}

// sparseMap is the map of GNU.sparse 1.0, padded to blocks.
func sparseMap(extents []extent) []byte {
	var b strings.Builder
	b.WriteString(strconv.Itoa(len(extents)) + "\n")
	for _, e := range extents {
		b.WriteString(strconv.FormatInt(e.offset, 10) + "\n" + strconv.FormatInt(e.length, 10) + "\n")
	}
	for b.Len()%512 != 0 {
		b.WriteByte(0)
	}
	return []byte(b.String())
}
