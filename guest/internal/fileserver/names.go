package fileserver

import (
	"syscall"

	"vmsan/guest/internal/fuse"
)

// inDir gives a directory's descriptor for work on one name in it, and has it watched.
func (s *Share) inDir(n *node, name string) (int, error) {
	if n.phantom {
		return -1, syscall.ENOENT
	}
	if badName(name) {
		if len(name) > 255 {
			return -1, syscall.ENAMETOOLONG
		}
		return -1, syscall.EINVAL
	}
	dir, err := s.nodes.directory(n)
	if err == nil {
		s.watcher.add(n, dir)
	}
	return dir, err
}

func (s *Share) lookup(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	name := in.Text()
	dir, err := s.inDir(n, name)
	if err != nil {
		return b, err
	}
	st, err := s.find(dir, name)
	if err == syscall.ENOENT {
		// That there is none may be believed as long as that there is one; of a volume, not at all.
		var e fuse.Entry
		if !s.volume {
			e.EntryValid = s.nameValid(n)
		}
		return e.Append(b), nil
	}
	if err != nil {
		return b, err
	}
	e := s.entry(n, name, &st)
	return e.Append(b), nil
}

// find looks at a name.
func (s *Share) find(dir int, name string) (syscall.Stat_t, error) {
	st, err := statName(dir, name)
	if err != nil {
		return st, err
	}
	if !s.shown(&st) {
		return st, syscall.ENOENT
	}
	if uint64(st.Dev) != s.root.dev && s.kernels(dir, name) {
		return st, syscall.EACCES
	}
	return st, nil
}

// kernels tells whether a name is where a file system without files is mounted.
func (s *Share) kernels(dir int, name string) bool {
	fd, err := openName(dir, name, oPath, 0)
	if err != nil {
		return true
	}
	defer closeFd(fd)
	var fs syscall.Statfs_t
	return syscall.Fstatfs(fd, &fs) != nil || kernelTypes[uint32(fs.Type)]
}

// entry tells the kernel of an object and counts that.
func (s *Share) entry(parent *node, name string, st *syscall.Stat_t) fuse.Entry {
	child := s.nodes.enter(parent, name, st)
	return fuse.Entry{
		Node: child.id, EntryValid: s.nameValid(parent), AttrValid: s.attrValid(parent, child, st), Attr: s.attr(st),
	}
}

// made gives a new object to the guest's user who made it and answers with its entry.
// mode is the one it is to have; 0: as it is.
func (s *Share) made(n *node, dir int, name string, r *fuse.Request, mode uint32, b []byte) ([]byte, error) {
	fd, err := openName(dir, name, oPath, 0)
	if err != nil {
		return b, stale(err)
	}
	defer closeFd(fd)
	var st syscall.Stat_t
	if err := s.bestow(fd, dir, r, mode, &st); err != nil {
		return b, err
	}
	e := s.entry(n, name, &st)
	s.note(e.Node, &st)
	return e.Append(b), nil
}

// bestow sets owner and mode of what was just made, and looks at it.
func (s *Share) bestow(fd, dir int, r *fuse.Request, mode uint32, st *syscall.Stat_t) error {
	if !s.squash {
		var of syscall.Stat_t
		if err := syscall.Fstat(dir, &of); err != nil {
			return err
		}
		uid, gid := int(r.UID), int(r.GID)
		if !s.sameOwners() {
			own := s.owner.Load()
			uid, gid = int(givenID(r.UID, of.Uid, own.uid)), int(givenID(r.GID, of.Gid, own.gid))
		}
		if of.Mode&syscall.S_ISGID != 0 {
			gid = -1 // the directory's, which the kernel has seen to
		}
		if uint32(uid) != s.uid || gid >= 0 && uint32(gid) != s.gid {
			if err := syscall.Fchownat(fd, "", uid, gid, atEmptyPath); err != nil {
				return err
			}
		}
	}
	if mode != 0 {
		if err := syscall.Fstat(fd, st); err != nil {
			return err
		}
		// A directory's set-group-ID bit came from the one it is in.
		want := mode&0o7777 | st.Mode&syscall.S_ISGID
		if st.Mode&0o7777 != want {
			if err := syscall.Chmod(ownFd(fd), want); err != nil {
				return err
			}
		}
	}
	return syscall.Fstat(fd, st)
}

// note marks a change as the guest's own.
func (s *Share) note(id uint64, st *syscall.Stat_t) {
	if n, err := s.nodes.get(id); err == nil {
		s.nodes.changed(n, st)
		s.nodes.put(n)
	}
}

func (s *Share) mknod(n *node, r *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	mode, _, _, _ := in.U32(), in.U32(), in.U32(), in.U32()
	name := in.Text()
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK:
	default:
		return b, syscall.EPERM // a device here would be the host's
	}
	dir, err := s.inDir(n, name)
	if err != nil {
		return b, err
	}
	if _, err := at(syscall.SYS_MKNODAT, dir, name, uintptr(mode&(syscall.S_IFMT|0o700)), 0); err != nil {
		return b, err
	}
	return s.made(n, dir, name, r, mode&0o7777, b)
}

func (s *Share) mkdir(n *node, r *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	mode, _ := in.U32(), in.U32()
	name := in.Text()
	dir, err := s.inDir(n, name)
	if err != nil {
		return b, err
	}
	if _, err := at(syscall.SYS_MKDIRAT, dir, name, uintptr(mode&0o700)); err != nil {
		return b, err
	}
	return s.made(n, dir, name, r, mode&0o7777, b)
}

func (s *Share) symlink(n *node, r *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	name, target := in.Text(), in.Text()
	dir, err := s.inDir(n, name)
	if err != nil {
		return b, err
	}
	if err := symlinkAt(target, dir, name); err != nil {
		return b, err
	}
	return s.made(n, dir, name, r, 0, b)
}

func (s *Share) link(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	source := in.U64()
	name := in.Text()
	dir, err := s.inDir(n, name)
	if err != nil {
		return b, err
	}
	from, err := s.nodes.get(source)
	if err != nil {
		return b, err
	}
	defer s.nodes.put(from)
	fd, release, err := s.nodes.descriptor(from)
	if err != nil {
		return b, err
	}
	defer release()
	if err := linkAt(fd, dir, name); err != nil {
		return b, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return b, err
	}
	e := s.entry(n, name, &st)
	s.note(e.Node, &st)
	return e.Append(b), nil
}

func (s *Share) readlink(n *node, _ *fuse.Request, _ *fuse.Reader, b []byte) ([]byte, error) {
	fd, release, err := s.nodes.descriptor(n)
	if err != nil {
		return b, err
	}
	defer release()
	target := make([]byte, 4096)
	size, err := readlinkFd(fd, target)
	if err != nil {
		return b, err
	}
	return append(b, target[:size]...), nil
}

func (s *Share) unlink(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	return b, s.remove(n, in.Text(), 0)
}

func (s *Share) rmdir(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	return b, s.remove(n, in.Text(), atRemovedir)
}

func (s *Share) remove(n *node, name string, flags uintptr) error {
	dir, err := s.inDir(n, name)
	if err != nil {
		return err
	}
	st, err := s.find(dir, name)
	if err != nil {
		return err
	}
	old := s.nodes.gone(&st)
	if old != nil {
		defer s.nodes.put(old)
	}
	s.graves.dig(n, name)
	if _, err := at(syscall.SYS_UNLINKAT, dir, name, flags); err != nil {
		s.graves.take(n, name)
		return err
	}
	s.lost(old, n, name)
	s.room.freed.Store(true)
	return nil
}

// lost notes that a node's name is gone; other names of it show the change too.
func (s *Share) lost(n, parent *node, name string) {
	if n == nil {
		return
	}
	s.nodes.lost(n, parent, name)
	var st syscall.Stat_t
	if fd, release, err := s.nodes.descriptor(n); err == nil {
		if syscall.Fstat(fd, &st) == nil {
			s.nodes.changed(n, &st)
		}
		release()
	}
}

func (s *Share) rename(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	to := in.U64()
	return b, s.move(n, in.Text(), to, in.Text(), 0)
}

func (s *Share) rename2(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	to, flags, _ := in.U64(), in.U32(), in.U32()
	return b, s.move(n, in.Text(), to, in.Text(), flags)
}

func (s *Share) move(n *node, old string, toID uint64, name string, flags uint32) error {
	if flags&^(renameNoreplace|renameExchange) != 0 {
		return syscall.EINVAL
	}
	to, err := s.nodes.get(toID)
	if err != nil {
		return err
	}
	defer s.nodes.put(to)
	from, err := s.inDir(n, old)
	if err != nil {
		return err
	}
	dir, err := s.inDir(to, name)
	if err != nil {
		return err
	}
	st, err := s.find(from, old)
	if err != nil {
		return err
	}
	moved := s.nodes.gone(&st)
	if moved != nil {
		defer s.nodes.put(moved)
	}
	var replaced *node
	target, err := statName(dir, name)
	if err == nil {
		if !s.shown(&target) {
			return syscall.EACCES
		}
		if replaced = s.nodes.gone(&target); replaced != nil {
			defer s.nodes.put(replaced)
		}
	}
	s.graves.dig(n, old)
	if err := renameNames(from, old, dir, name, flags); err != nil {
		s.graves.take(n, old)
		return err
	}
	if replaced == moved && moved != nil {
		return nil // two names of one object: nothing happens
	}
	if flags&renameExchange != 0 {
		s.graves.take(n, old)
		s.moved(replaced, n, old, from)
	} else {
		s.lost(replaced, to, name)
		s.room.freed.Store(true)
	}
	s.moved(moved, to, name, dir)
	return nil
}

// moved notes where a node is now.
func (s *Share) moved(n, dir *node, name string, fd int) {
	if n == nil {
		return
	}
	s.nodes.mu.Lock()
	if !within(dir, n) {
		s.nodes.place(n, dir, name)
		n.dead = false
	}
	s.nodes.mu.Unlock()
	if st, err := statName(fd, name); err == nil && keyOf(&st) == n.key {
		s.nodes.changed(n, &st)
	}
}
