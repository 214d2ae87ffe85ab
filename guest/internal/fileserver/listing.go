package fileserver

import (
	"encoding/binary"
	"sync"
	"syscall"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// listing is where the reading of a directory is.
type listing struct {
	mu sync.Mutex
	// next is the position of the descriptor behind buffered.
	next     int64
	buffer   [32 << 10]byte
	buffered []byte
}

func (s *Share) opendir(n *node, _ *fuse.Request, _ *fuse.Reader, b []byte) ([]byte, error) {
	if n.phantom {
		return b, syscall.ENOENT
	}
	path, err := s.nodes.directory(n)
	if err != nil {
		return b, err
	}
	s.watcher.add(n, path)
	fd, err := reopen(path, syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil {
		return b, err
	}
	id, err := s.keepHandle(&handle{fd: fd, node: n, dir: &listing{}})
	return fuse.AppendOpen(b, id, 0), err
}

func (s *Share) readdir(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	return s.list(n, in, b, false)
}

func (s *Share) readdirplus(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	return s.list(n, in, b, true)
}

// list reads entries from an offset on; plus: with what LOOKUP would say of each.
func (s *Share) list(n *node, in *fuse.Reader, b []byte, plus bool) ([]byte, error) {
	id, offset, size := in.U64(), int64(in.U64()), in.U32()
	h, err := s.handle(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	if h.dir == nil || h.node != n {
		return b, syscall.EBADF
	}
	if h.void {
		return b, syscall.ESTALE
	}
	d := h.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	room := int(min(size, sharewire.MaxData))
	if d.next != offset || offset == 0 {
		if _, err := syscall.Seek(h.fd, offset, 0); err != nil {
			return b, err
		}
		d.buffered, d.next = nil, offset
	}
	start := len(b)
	for {
		if len(d.buffered) == 0 {
			got, err := syscall.Getdents(h.fd, d.buffer[:])
			if err != nil {
				return b[:start], err
			}
			if got == 0 {
				return b, nil
			}
			d.buffered = d.buffer[:got]
		}
		e := parseDirent(d.buffered)
		need := fuse.DirentSize(len(e.name))
		if plus {
			need += fuse.EntryLen
		}
		if len(b)-start+need > room {
			return b, nil
		}
		d.buffered, d.next = d.buffered[e.size:], int64(e.off)
		var shown bool
		if b, shown = s.listed(n, h, e, plus, b); !shown {
			continue
		}
		b = fuse.AppendDirent(b, e.ino, e.off, e.kind, e.name)
	}
}

// listed adds what comes before an entry; false: the guest does not see it.
func (s *Share) listed(n *node, h *handle, e dirent, plus bool, b []byte) ([]byte, bool) {
	dots := e.name == "." || e.name == ".."
	if !dots && (plus || len(s.hidden) > 0) {
		st, err := s.find(h.fd, e.name)
		if err == syscall.ENOENT {
			return b, false
		}
		if plus && err == nil {
			entry := s.entry(n, e.name, &st)
			return entry.Append(b), true
		}
	}
	if plus {
		none := fuse.Entry{} // to be looked up by itself
		b = none.Append(b)
	}
	return b, true
}

// dirent is one struct linux_dirent64.
type dirent struct {
	ino, off uint64
	kind     uint32
	size     int
	name     string
}

func parseDirent(b []byte) dirent {
	le := binary.LittleEndian
	e := dirent{ino: le.Uint64(b), off: le.Uint64(b[8:]), size: int(le.Uint16(b[16:])), kind: uint32(b[18])}
	name := b[19:e.size]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	e.name = string(name)
	return e
}
