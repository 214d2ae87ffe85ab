package channel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	afVsock = 40
	// VsockPort is where the agent listens.
	VsockPort = 1024
	cidAny    = 0xffffffff
	cidHost   = 2
)

// sockaddrVM is struct sockaddr_vm of linux/vm_sockets.h.
type sockaddrVM struct {
	family   uint16
	reserved uint16
	port     uint32
	cid      uint32
	zero     [4]byte
}

// vsockListener accepts connections from the host alone.
type vsockListener struct {
	file *os.File
	raw  syscall.RawConn
}

// ListenVsock binds a port.
func ListenVsock(port uint32) (net.Listener, error) {
	fd, err := syscall.Socket(afVsock, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("vsock socket: %w", err)
	}
	sa := sockaddrVM{family: afVsock, port: port, cid: cidAny}
	if _, _, e := syscall.Syscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa)); e != 0 {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("vsock bind: %w", e)
	}
	if err := syscall.Listen(fd, 128); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("vsock listen: %w", err)
	}
	f := os.NewFile(uintptr(fd), "vsock")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &vsockListener{file: f, raw: raw}, nil
}

// Accept implements net.Listener. Programs of the guest itself (loopback) are turned away.
func (l *vsockListener) Accept() (net.Conn, error) {
	for {
		var nfd uintptr
		var errno syscall.Errno
		var peer sockaddrVM
		err := l.raw.Read(func(fd uintptr) bool {
			size := uint32(unsafe.Sizeof(peer))
			nfd, _, errno = syscall.Syscall6(syscall.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&peer)),
				uintptr(unsafe.Pointer(&size)), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0, 0)
			return errno != syscall.EAGAIN
		})
		if errors.Is(err, os.ErrClosed) {
			return nil, net.ErrClosed
		}
		if err != nil {
			return nil, err
		}
		if errno != 0 {
			return nil, errno
		}
		if peer.cid != cidHost {
			_ = syscall.Close(int(nfd))
			continue
		}
		return &vsockConn{File: os.NewFile(nfd, "vsock")}, nil
	}
}

// Close implements net.Listener.
func (l *vsockListener) Close() error { return l.file.Close() }

// Addr implements net.Listener.
func (l *vsockListener) Addr() net.Addr { return addr{} }

// vsockConn is a net.Conn on a descriptor that package net does not know.
type vsockConn struct{ *os.File }

// LocalAddr implements net.Conn.
func (c *vsockConn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (c *vsockConn) RemoteAddr() net.Addr { return addr{} }

// SetWriteDeadline implements net.Conn.
func (c *vsockConn) SetWriteDeadline(t time.Time) error { return c.File.SetWriteDeadline(t) }
