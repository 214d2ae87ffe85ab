package fileserver

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// handle is an open file or directory.
type handle struct {
	fd   int
	node *node
	// noop: it was opened to be closed, for watchers in the guest.
	noop bool
	dir  *listing
	// flags it was opened with, as far as they count for opening it again.
	flags int
	// lock that it has (flock(2)), 0 for none; guarded by Share.handleMu.
	lock int
	// void: it was opened in another file server's time, and its object is not there any more.
	void bool

	refs   int // guarded by Share.handleMu, as is closed
	closed bool
}

// maxHandles bounds what one guest may have open.
const maxHandles = 100_000

// handle takes hold of an open handle; drop must follow.
func (s *Share) handle(id uint64) (*handle, error) {
	s.handleMu.Lock()
	defer s.handleMu.Unlock()
	h := s.handles[id]
	if h == nil {
		return nil, syscall.EBADF
	}
	h.refs++
	return h, nil
}

func (s *Share) drop(h *handle) {
	s.handleMu.Lock()
	h.refs--
	over := h.closed && h.refs == 0
	s.handleMu.Unlock()
	if over {
		closeFd(h.fd)
	}
}

// keepHandle numbers a handle; its descriptor is closed if there are too many.
func (s *Share) keepHandle(h *handle) (uint64, error) {
	s.handleMu.Lock()
	defer s.handleMu.Unlock()
	if s.handles == nil || len(s.handles) >= maxHandles {
		closeFd(h.fd)
		return 0, syscall.ENFILE
	}
	id := s.nextHandle
	s.nextHandle++
	s.handles[id] = h
	return id, nil
}

func (s *Share) release(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id := in.U64()
	h, err := s.handle(id)
	if err != nil {
		return b, err
	}
	s.handleMu.Lock()
	delete(s.handles, id)
	first := !h.closed
	h.closed = true
	s.handleMu.Unlock()
	s.drop(h)
	s.room.freed.Store(true)
	if first && !h.noop && h.dir == nil {
		s.nodes.unhold(h.node)
	}
	return b, nil
}

// openFlags: what of an opening in the guest is meant for the host's file. Only regular files
// are opened: a device or a pipe would be the host's.
func openFlags(flags uint32) int {
	return int(flags) & (syscall.O_ACCMODE | syscall.O_APPEND | syscall.O_TRUNC | syscall.O_SYNC | syscall.O_DSYNC)
}

func (s *Share) open(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	flags, open := in.U32(), in.U32()
	if in.Bad() {
		return b, syscall.EINVAL
	}
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0 {
		if s.readonly {
			return b, syscall.EROFS
		}
		s.changing.RLock()
		defer s.changing.RUnlock()
	}
	id, keep, err := s.openNode(n, flags, open)
	return fuse.AppendOpen(b, id, keep), err
}

// openNode opens a node's file.
func (s *Share) openNode(n *node, flags, open uint32) (id uint64, reply uint32, err error) {
	if n.kind != syscall.S_IFREG || n.phantom {
		return 0, 0, syscall.EACCES
	}
	path, err := s.nodes.hold(n, func() { n.handles++ })
	if err != nil {
		return 0, 0, err
	}
	fd, err := reopen(path, openFlags(flags)|syscall.O_NONBLOCK|syscall.O_NOCTTY)
	if err != nil {
		s.nodes.unhold(n)
		return 0, 0, err
	}
	if open&fuse.OpenKillSugid != 0 && flags&syscall.O_TRUNC != 0 {
		killSugid(fd)
	}
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) == nil {
		s.nodes.mu.Lock()
		if flags&syscall.O_TRUNC != 0 {
			n.own = stampOf(&st)
		} else if n.opened == stampOf(&st) || n.own == stampOf(&st) {
			reply = fuse.OpenKeepCache // nobody but the guest has written since
		}
		n.opened = stampOf(&st)
		s.nodes.mu.Unlock()
	}
	id, err = s.keepHandle(&handle{fd: fd, node: n, flags: openFlags(flags) & keptFlags})
	if err != nil {
		s.nodes.unhold(n)
	}
	return id, reply, err
}

func (s *Share) create(n *node, r *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	flags, mode, _, open := in.U32(), in.U32(), in.U32(), in.U32()
	name := in.Text()
	dir, err := s.inDir(n, name)
	if err != nil {
		return b, err
	}
	if mode&syscall.S_IFMT != 0 && mode&syscall.S_IFMT != syscall.S_IFREG {
		return b, syscall.EINVAL
	}
	// To be read and written whatever its mode is to be; the handle is opened behind it.
	fd, err := openName(dir, name, syscall.O_CREAT|syscall.O_EXCL|openFlags(flags), mode&0o700)
	if err == syscall.EEXIST && flags&syscall.O_EXCL == 0 {
		return s.openExisting(n, dir, name, flags, open, b)
	}
	if err != nil {
		return b, err
	}
	var st syscall.Stat_t
	if err := s.bestow(fd, dir, r, mode&0o7777, &st); err != nil {
		closeFd(fd)
		return b, err
	}
	e := s.entry(n, name, &st)
	child, err := s.nodes.get(e.Node)
	if err != nil {
		closeFd(fd)
		return b, err
	}
	defer s.nodes.put(child)
	s.nodes.mu.Lock()
	child.own, child.opened = stampOf(&st), stampOf(&st)
	s.nodes.mu.Unlock()
	if _, err := s.nodes.hold(child, func() { child.handles++ }); err != nil {
		closeFd(fd)
		return b, err
	}
	id, err := s.keepHandle(&handle{fd: fd, node: child, flags: openFlags(flags) & keptFlags})
	if err != nil {
		s.nodes.unhold(child)
		return b, err
	}
	return fuse.AppendOpen(e.Append(b), id, 0), nil
}

// openExisting answers CREATE for a name that somebody else has made in between.
func (s *Share) openExisting(n *node, dir int, name string, flags, open uint32, b []byte) ([]byte, error) {
	st, err := s.find(dir, name)
	if err != nil {
		return b, err
	}
	e := s.entry(n, name, &st)
	child, err := s.nodes.get(e.Node)
	if err != nil {
		return b, err
	}
	defer s.nodes.put(child)
	id, keep, err := s.openNode(child, flags, open)
	if err != nil {
		s.nodes.forget(e.Node, 1) // the kernel does not count a failed CREATE
		return b, err
	}
	return fuse.AppendOpen(e.Append(b), id, keep), nil
}

// file takes hold of a handle of a file.
func (s *Share) file(id uint64) (*handle, error) {
	h, err := s.handle(id)
	if err != nil {
		return nil, err
	}
	switch {
	case h.dir != nil || h.noop:
		err = syscall.EBADF
	case h.void:
		err = syscall.ESTALE
	default:
		return h, nil
	}
	s.drop(h)
	return nil, err
}

func (s *Share) read(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id, offset, size := in.U64(), in.U64(), in.U32()
	h, err := s.file(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	if size > sharewire.MaxData || offset > 1<<62 {
		return b, syscall.EINVAL
	}
	at := len(b)
	if cap(b) < at+int(size) {
		b = append(make([]byte, 0, at+int(size)), b...)
	}
	b = b[:at+int(size)]
	done := 0
	for done < int(size) {
		n, err := syscall.Pread(h.fd, b[at+done:], int64(offset)+int64(done))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return b[:at], err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return b[:at+done], nil
}

func (s *Share) write(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id, offset, size, flags := in.U64(), in.U64(), in.U32(), in.U32()
	in.U64()
	in.U64()
	data := in.Bytes(size)
	h, err := s.file(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	if in.Bad() || offset > 1<<62 {
		return b, syscall.EINVAL
	}
	if flags&fuse.WriteKillSugid != 0 {
		killSugid(h.fd)
	}
	done := 0
	if err := s.growing(h.fd, s.needFor(h, int64(offset), int64(size)), func() error {
		done, err = pwrite(h.fd, data, int64(offset))
		return err
	}); err != nil {
		return b, err
	}
	s.wrote(h)
	return binary.LittleEndian.AppendUint64(b, uint64(done)), nil
}

// pwrite writes until there is an error, which is told if nothing was written: else it comes again.
func pwrite(fd int, data []byte, at int64) (done int, err error) {
	for done < len(data) {
		n, err := syscall.Pwrite(fd, data[done:], at+int64(done))
		if err == syscall.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return 0, err
		}
		if err != nil || n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// wrote marks a file's change as the guest's own.
func (s *Share) wrote(h *handle) {
	if s.volume {
		// The kernel's clock stands still for milliseconds: two VMs that write one after the other would leave the
		// same time, by which their kernels see that what they have read is old.
		touch(h.fd)
	}
	var st syscall.Stat_t
	if syscall.Fstat(h.fd, &st) == nil {
		s.nodes.mu.Lock()
		h.node.own, h.node.opened = stampOf(&st), stampOf(&st)
		s.nodes.mu.Unlock()
	}
}

func (s *Share) fsync(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id, flags := in.U64(), in.U32()
	h, err := s.handle(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	if h.noop || h.void {
		return b, nil
	}
	if flags&fuse.FsyncDataOnly != 0 {
		return b, syscall.Fdatasync(h.fd)
	}
	return b, syscall.Fsync(h.fd)
}

func (s *Share) fallocate(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id, offset, length, mode := in.U64(), in.U64(), in.U64(), in.U32()
	h, err := s.file(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	if int64(length) < 0 {
		return b, syscall.EINVAL
	}
	need := s.needFor(h, int64(offset), int64(length))
	if mode&(fallocPunchHole|fallocCollapseRange) != 0 {
		need = 0
		s.room.freed.Store(true)
	}
	if err := s.growing(h.fd, need, func() error {
		return syscall.Fallocate(h.fd, mode, int64(offset), int64(length))
	}); err != nil {
		return b, err
	}
	s.wrote(h)
	return b, nil
}

func (s *Share) lseek(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id, offset, whence := in.U64(), in.U64(), in.U32()
	h, err := s.file(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	if whence != seekData && whence != seekHole {
		return b, syscall.EINVAL // the guest's kernel knows the others itself
	}
	at, err := syscall.Seek(h.fd, int64(offset), int(whence))
	return binary.LittleEndian.AppendUint64(b, uint64(at)), err
}

func (s *Share) copyRange(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	fromID, fromAt, _, toID, toAt, length, flags := in.U64(), in.U64(), in.U64(), in.U64(), in.U64(), in.U64(), in.U64()
	from, err := s.file(fromID)
	if err != nil {
		return b, err
	}
	defer s.drop(from)
	to, err := s.file(toID)
	if err != nil {
		return b, err
	}
	defer s.drop(to)
	if flags != 0 || in.Bad() {
		return b, syscall.EINVAL
	}
	a, z := int64(fromAt), int64(toAt)
	// In parts, so that a change on the host is not waited for too long.
	part, n := min(length, 64<<20), 0
	err = s.growing(to.fd, int64(part), func() error {
		n, err = call(sysCopyFileRange, uintptr(from.fd), uintptr(unsafe.Pointer(&a)), uintptr(to.fd),
			uintptr(unsafe.Pointer(&z)), uintptr(part), 0)
		return err
	})
	if err != nil {
		if err == syscall.EXDEV {
			err = syscall.EOPNOTSUPP // the guest's kernel then copies by itself
		}
		return b, err
	}
	s.wrote(to)
	return binary.LittleEndian.AppendUint64(b, uint64(n)), nil
}
