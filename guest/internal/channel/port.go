package channel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vmsan/guest/internal/rawio"
)

// PortName is the name of the agent's virtio-serial port.
const PortName = "vmsan.0"

// Port is a virtio-serial port. It is opened once and kept: closing it makes
// the kernel throw away what the host has queued.
type Port struct {
	file *os.File
	raw  syscall.RawConn
	// read and write are the system calls.
	read, write func(fd int, b []byte) (int, error)
}

// FindPort gives the device of the port of that name, "" if there is none (yet).
func FindPort(name string) string {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return ""
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(n))
		}
	}
	return ""
}

// OpenPort opens the device.
func OpenPort(dev string) (*Port, error) {
	fd, err := syscall.Open(dev, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dev, Err: err}
	}
	return NewPort(uintptr(fd))
}

// NewPort takes over an open descriptor.
func NewPort(fd uintptr) (*Port, error) {
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		return nil, err
	}
	f := os.NewFile(fd, PortName)
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Port{file: f, raw: raw, read: syscall.Read, write: syscall.Write}, nil
}

// Unannounced has Read and Write make their system calls, which never wait, without telling Go's
// scheduler: see package rawio.
func (p *Port) Unannounced() *Port {
	p.read, p.write = rawio.Read, rawio.Write
	return p
}

// File gives the descriptor's file, to hand it to a child.
func (p *Port) File() *os.File { return p.file }

// Read waits for input and takes as much as is there (one read(2) gives at most
// 4096 bytes). A read of 0 bytes only says that the host is not connected now:
// it waits for the next event (the poller is edge-triggered).
func (p *Port) Read(b []byte) (int, error) {
	n := 0
	var err error
	werr := p.raw.Read(func(fd uintptr) bool {
		for n < len(b) {
			var got int
			got, err = p.read(int(fd), b[n:])
			switch {
			case errors.Is(err, syscall.EINTR):
				err = nil
				continue
			case errors.Is(err, syscall.EAGAIN), err == nil && got == 0:
				err = nil
				return n > 0
			case err != nil:
				return true
			}
			n += got
		}
		return true
	})
	if n > 0 {
		// An error comes again with the next read.
		return n, nil
	}
	return 0, errors.Join(werr, err)
}

// Write writes all of b, waiting while the host does not take it.
func (p *Port) Write(b []byte) (int, error) {
	done := 0
	var err error
	werr := p.raw.Write(func(fd uintptr) bool {
		for done < len(b) {
			var n int
			n, err = p.write(int(fd), b[done:])
			switch {
			case errors.Is(err, syscall.EINTR):
				err = nil
			case errors.Is(err, syscall.EAGAIN):
				err = nil
				return false
			case err != nil:
				return true
			case n == 0:
				return false
			default:
				done += n
			}
		}
		return true
	})
	if werr != nil {
		return done, werr
	}
	return done, err
}

// SetWriteDeadline implements Stream.
func (p *Port) SetWriteDeadline(t time.Time) error { return p.file.SetWriteDeadline(t) }

// Close implements Stream.
func (p *Port) Close() error { return p.file.Close() }
