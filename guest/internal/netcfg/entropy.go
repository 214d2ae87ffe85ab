package netcfg

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"
)

const (
	rndAddEntropy  = 0x40085203
	rndReseedCrng  = 0x5207
	maxEntropySize = 4096
)

// addEntropy credits seed to the kernel's generator and makes it reseed now:
// clones of one snapshot would otherwise draw the same numbers.
func addEntropy(seed []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var pool struct {
		bits int32
		size int32
		buf  [maxEntropySize]byte
	}
	pool.size = int32(copy(pool.buf[:], seed))
	pool.bits = pool.size * 8
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&pool))); e != 0 {
		return os.NewSyscallError("RNDADDENTROPY", e)
	}
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), rndReseedCrng, 0); e != 0 {
		return os.NewSyscallError("RNDRESEEDCRNG", e)
	}
	return nil
}

// Awake gives a machine whose memory others have too randomness of its own, and the time (nanoseconds since the epoch).
func Awake(seed []byte, unixNs int64) error {
	if err := addEntropy(seed); err != nil {
		return err
	}
	return setClock(unixNs)
}

// seedSize is how much of the host's randomness Reseed takes, in bytes.
const seedSize = 64

// Reseed has the kernel's generator draw on the host's randomness by the machine's own device, without the host's doing:
// for work that goes on with nobody having mended the guest.
func Reseed() {
	seed := make([]byte, seedSize)
	f, err := os.Open("/dev/hwrng")
	if err == nil {
		_, err = io.ReadFull(f, seed)
		_ = f.Close()
	}
	if err != nil {
		// No such device; what the processor has is drawn upon all the same.
		seed = nil
	}
	if err := addEntropy(seed); err != nil {
		fmt.Fprintf(os.Stderr, "vmsan-agent: warning: the generator could not be seeded anew: %v\n", err)
	}
}
