package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Linux constants that package syscall does not name.
const (
	cloneNewnet     = 0x40000000
	ipTransparent   = 19
	ipv6Transparent = 75
)

// inNetns runs body on a thread that is in the given network namespace. The thread goes back
// afterwards, or ends with its goroutine when that fails.
func inNetns(path string, body func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", syscall.Gettid()))
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		target, err := os.Open(path)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer target.Close()
		if err := setns(target.Fd()); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter %s: %w", path, err)
			return
		}
		err = body()
		if setns(home.Fd()) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// setns moves the calling thread.
func setns(fd uintptr) error {
	if _, _, errno := syscall.RawSyscall(sysSetns, fd, cloneNewnet, 0); errno != 0 {
		return errno
	}
	return nil
}

// sockaddr is the kernel's form of host:port, and its address family.
func sockaddr(address string) (syscall.Sockaddr, int, error) {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, 0, err
	}
	if parsed.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(parsed.Port()), Addr: parsed.Addr().As4()}, syscall.AF_INET, nil
	}
	return &syscall.SockaddrInet6{Port: int(parsed.Port()), Addr: parsed.Addr().As16()}, syscall.AF_INET6, nil
}

// open makes a socket in a namespace; setup runs on it there.
func open(netns, address string, kind int, setup func(fd, family int, addr syscall.Sockaddr) error) (int, int, error) {
	addr, family, err := sockaddr(address)
	if err != nil {
		return -1, 0, err
	}
	fd := -1
	err = inNetns(netns, func() error {
		var err error
		fd, err = syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if family == syscall.AF_INET6 {
			if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1); err != nil {
				return err
			}
		}
		return setup(fd, family, addr)
	})
	if err != nil && fd >= 0 {
		syscall.Close(fd)
		fd = -1
	}
	return fd, family, err
}

// listenTCP gives a listening socket; a transparent one takes connections to any address that
// the namespace's rules send to it, and keeps that address as the local one.
func listenTCP(netns, address string, transparent bool) (int, error) {
	fd, _, err := open(netns, address, syscall.SOCK_STREAM, func(fd, family int, addr syscall.Sockaddr) error {
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if transparent {
			level, option := syscall.IPPROTO_IP, ipTransparent
			if family == syscall.AF_INET6 {
				level, option = syscall.IPPROTO_IPV6, ipv6Transparent
			}
			if err := syscall.SetsockoptInt(fd, level, option, 1); err != nil {
				return err
			}
		}
		if err := syscall.Bind(fd, addr); err != nil {
			return err
		}
		return syscall.Listen(fd, 511)
	})
	return fd, err
}

// bindUDP gives a bound datagram socket and its kind in Node's words.
func bindUDP(netns, address string) (int, string, error) {
	fd, family, err := open(netns, address, syscall.SOCK_DGRAM, func(fd, _ int, addr syscall.Sockaddr) error {
		return syscall.Bind(fd, addr)
	})
	if family == syscall.AF_INET6 {
		return fd, "udp6", err
	}
	return fd, "udp4", err
}

// connectTCP gives a connected socket. The connection is made outside the namespace's thread:
// a socket stays in the namespace it was made in.
func connectTCP(netns, address string, timeoutMs int64) (int, error) {
	var target syscall.Sockaddr
	fd, _, err := open(netns, address, syscall.SOCK_STREAM, func(_, _ int, addr syscall.Sockaddr) error {
		target = addr
		return nil
	})
	if err != nil {
		return -1, err
	}
	if timeoutMs <= 0 {
		timeoutMs = 10_000
	}
	deadline := time.Now().Add(time.Duration(timeoutMs) * time.Millisecond)
	for {
		// SO_SNDTIMEO also bounds connect(2), and is why the kernel does not go on by itself after a signal, of which
		// Go sends itself some. Called again it goes on waiting for the same connection.
		limit := syscall.NsecToTimeval(max(time.Until(deadline), time.Millisecond).Nanoseconds())
		if err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit); err == nil {
			err = syscall.Connect(fd, target)
		}
		if err != syscall.EINTR {
			break
		}
	}
	if err == syscall.EINPROGRESS || err == syscall.EALREADY {
		err = syscall.ETIMEDOUT
	}
	if err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// writeSysctls writes files below /proc/sys/net as seen from a namespace.
func writeSysctls(netns string, writes map[string]string) error {
	return inNetns(netns, func() error {
		for name, value := range writes {
			path := filepath.Join("/proc/sys/net", name)
			if !strings.HasPrefix(path, "/proc/sys/net/") {
				return fmt.Errorf("%q is not below /proc/sys/net", name)
			}
			err := os.WriteFile(path, []byte(value), 0)
			if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
				continue // a kernel without IPv6 has nothing to switch off
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// errnoName is the symbolic name of common system errors, for the daemon's messages.
func errnoName(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	names := map[syscall.Errno]string{
		syscall.EADDRINUSE: "EADDRINUSE", syscall.EACCES: "EACCES", syscall.EPERM: "EPERM",
		syscall.ECONNREFUSED: "ECONNREFUSED", syscall.ETIMEDOUT: "ETIMEDOUT",
		syscall.EHOSTUNREACH: "EHOSTUNREACH", syscall.ENETUNREACH: "ENETUNREACH",
		syscall.ENOENT: "ENOENT", syscall.EADDRNOTAVAIL: "EADDRNOTAVAIL",
	}
	return names[errno]
}
