package fileserver

import (
	"syscall"

	"vmsan/guest/internal/fuse"
)

// setlk takes or gives back the lock of a whole file (flock(2)): on the descriptor that stands for the guest's open
// file, so that locks of several VMs are the host's own, and go with whoever had them. Nothing waits here: the guest's
// relay asks again (guest/internal/shares, locks.go).
func (s *Share) setlk(_ *node, _ *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error) {
	id, _, _, _ := in.U64(), in.U64(), in.U64(), in.U64()
	kind, _, flags := in.U32(), in.U32(), in.U32()
	how, ok := map[uint32]int{
		syscall.F_RDLCK: syscall.LOCK_SH, syscall.F_WRLCK: syscall.LOCK_EX, syscall.F_UNLCK: syscall.LOCK_UN,
	}[kind]
	if in.Bad() || !ok || !s.volume || flags&fuse.LockFlock == 0 {
		return b, syscall.EINVAL
	}
	h, err := s.file(id)
	if err != nil {
		return b, err
	}
	defer s.drop(h)
	err = syscall.Flock(h.fd, how|syscall.LOCK_NB)
	s.handleMu.Lock()
	defer s.handleMu.Unlock()
	// One that could not be made another kind is lost, as on the host.
	h.lock = 0
	if err == nil && how != syscall.LOCK_UN {
		h.lock = how
	}
	return b, err
}

// relock takes the lock again that a handle had in another file server's time; false: somebody else has it by now.
func (h *handle) relock(how int) bool {
	if how != syscall.LOCK_SH && how != syscall.LOCK_EX {
		return true
	}
	h.lock = how
	return syscall.Flock(h.fd, how|syscall.LOCK_NB) == nil
}
