package fileserver

import (
	"encoding/binary"
	"strings"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

func (s *Share) getattr(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	flags, _, fh := in.U32(), in.U32(), in.U64()
	if n.phantom {
		a := fuse.Attr{Ino: n.id, Mode: n.kind | 0o700, Nlink: 1}
		return fuse.AppendAttr(b, 0, &a), nil
	}
	var st syscall.Stat_t
	if flags&fuse.GetattrFh != 0 {
		h, err := s.handle(fh)
		if err != nil {
			return b, err
		}
		defer s.drop(h)
		if h.noop || h.void {
			return s.statNode(n, b)
		}
		if err := syscall.Fstat(h.fd, &st); err != nil {
			return b, err
		}
		return s.attrReply(n, &st, b), nil
	}
	return s.statNode(n, b)
}

// statNode answers with a node's attributes.
func (s *Share) statNode(n *node, b []byte) ([]byte, error) {
	fd, release, err := s.nodes.descriptor(n)
	if err != nil {
		return b, err
	}
	defer release()
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return b, err
	}
	return s.attrReply(n, &st, b), nil
}

func (s *Share) attrReply(n *node, st *syscall.Stat_t, b []byte) []byte {
	s.nodes.mu.Lock()
	valid := s.attrValid(n.parent, n, st)
	s.nodes.mu.Unlock()
	a := s.attr(st)
	return fuse.AppendAttr(b, valid, &a)
}

func (s *Share) setattr(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	valid, _, fh, size := in.U32(), in.U32(), in.U64(), in.U64()
	in.U64()
	atime, mtime := in.U64(), in.U64()
	in.U64()
	atimeNsec, mtimeNsec := in.U32(), in.U32()
	in.U32()
	mode := in.U32()
	in.U32()
	uid, gid := in.U32(), in.U32()
	fd, release, err := s.nodes.descriptor(n)
	if err != nil {
		return b, err
	}
	defer release()
	if valid&(fuse.AttrUID|fuse.AttrGID) != 0 {
		if err := s.chown(fd, n, valid, uid, gid); err != nil {
			return b, err
		}
	}
	if valid&fuse.AttrMode != 0 {
		if err := syscall.Chmod(ownFd(fd), mode&0o7777); err != nil {
			return b, err
		}
	}
	if valid&fuse.AttrSize != 0 {
		if err := s.truncate(fd, n, valid, fh, int64(size)); err != nil {
			return b, err
		}
		s.room.freed.Store(true)
	}
	if valid&fuse.AttrKillSugid != 0 {
		killSugid(fd)
	}
	if valid&(fuse.AttrAtime|fuse.AttrMtime) != 0 {
		times := [2]syscall.Timespec{
			timeOf(valid, fuse.AttrAtime, fuse.AttrAtimeNow, atime, atimeNsec),
			timeOf(valid, fuse.AttrMtime, fuse.AttrMtimeNow, mtime, mtimeNsec),
		}
		if _, err := at(syscall.SYS_UTIMENSAT, atFdcwd, ownFd(fd), uintptr(unsafe.Pointer(&times)), 0); err != nil {
			return b, err
		}
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return b, err
	}
	s.nodes.changed(n, &st)
	return s.attrReply(n, &st, b), nil
}

func timeOf(valid, set, now uint32, sec uint64, nsec uint32) syscall.Timespec {
	switch {
	case valid&set == 0:
		return syscall.Timespec{Nsec: utimeOmit}
	case valid&now != 0:
		return syscall.Timespec{Nsec: utimeNow}
	}
	return syscall.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// chown gives an object to another owner, which takes root on the host.
func (s *Share) chown(fd int, n *node, valid, uid, gid uint32) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	now := s.attr(&st)
	u, g := -1, -1 // what is the guest's already stays as it is
	if valid&fuse.AttrUID != 0 && uid != now.UID {
		u = int(uid)
	}
	if valid&fuse.AttrGID != 0 && gid != now.GID {
		g = int(gid)
	}
	if s.squash && (u >= 0 || g >= 0) {
		return syscall.EPERM
	}
	return syscall.Fchownat(fd, "", u, g, atEmptyPath)
}

func (s *Share) truncate(fd int, n *node, valid uint32, fh uint64, size int64) error {
	if valid&fuse.AttrFh != 0 {
		h, err := s.file(fh)
		if err != nil {
			return err
		}
		defer s.drop(h)
		return syscall.Ftruncate(h.fd, size)
	}
	if n.kind != syscall.S_IFREG {
		return syscall.EINVAL
	}
	w, err := reopen(fd, syscall.O_WRONLY|syscall.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer closeFd(w)
	return syscall.Ftruncate(w, size)
}

// killSugid takes the set-user-ID bit, and the set-group-ID bit of a program, from a file
// whose content or owner was changed, as the kernel does for those who are not root.
func killSugid(fd int) {
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return
	}
	mode := st.Mode &^ syscall.S_ISUID
	if mode&0o010 != 0 {
		mode &^= syscall.S_ISGID
	}
	if mode != st.Mode {
		_ = syscall.Chmod(ownFd(fd), mode&0o7777) // not ours: nothing of it could be changed either
	}
}

func (s *Share) setxattr(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	size, flags := in.U32(), in.U32()
	name := in.Text()
	value := in.Bytes(size)
	if in.Bad() {
		return b, syscall.EINVAL
	}
	return b, s.onXattr(n, name, func(path string) error { return syscall.Setxattr(path, name, value, int(flags)) })
}

func (s *Share) removexattr(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	name := in.Text()
	return b, s.onXattr(n, name, func(path string) error { return syscall.Removexattr(path, name) })
}

// onXattr changes an attribute.
func (s *Share) onXattr(n *node, name string, do func(path string) error) error {
	if !strings.HasPrefix(name, sharewire.UserXattr) {
		return syscall.EOPNOTSUPP
	}
	fd, release, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer release()
	if err := do(ownFd(fd)); err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	s.nodes.changed(n, &st)
	return nil
}

func (s *Share) getxattr(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	size, _ := in.U32(), in.U32()
	name := in.Text()
	if !strings.HasPrefix(name, sharewire.UserXattr) {
		return b, syscall.EOPNOTSUPP
	}
	return s.readXattr(n, size, b, func(path string, to []byte) (int, error) { return syscall.Getxattr(path, name, to) })
}

func (s *Share) listxattr(n *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	return s.readXattr(n, in.U32(), b, func(path string, to []byte) (int, error) {
		all := make([]byte, maxXattr)
		got, err := syscall.Listxattr(path, all)
		if err != nil {
			return 0, err
		}
		total := 0
		for _, name := range strings.SplitAfter(string(all[:got]), "\x00") {
			if !strings.HasPrefix(name, sharewire.UserXattr) {
				continue
			}
			if to != nil {
				if total+len(name) > len(to) {
					return 0, syscall.ERANGE
				}
				copy(to[total:], name)
			}
			total += len(name)
		}
		return total, nil
	})
}

// maxXattr is the kernel's limit for a value and for a list.
const maxXattr = 64 << 10

// readXattr answers with a value, or with its size when there is no room for one.
func (s *Share) readXattr(n *node, size uint32, b []byte, get func(path string, to []byte) (int, error)) ([]byte, error) {
	fd, release, err := s.nodes.descriptor(n)
	if err != nil {
		return b, err
	}
	defer release()
	if size == 0 {
		got, err := get(ownFd(fd), nil)
		if err != nil {
			return b, err
		}
		return binary.LittleEndian.AppendUint64(b, uint64(got)), nil
	}
	value := make([]byte, min(size, maxXattr))
	got, err := get(ownFd(fd), value)
	if err != nil {
		return b, err
	}
	return append(b, value[:got]...), nil
}
