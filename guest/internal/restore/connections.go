// Package restore is what the agent mends in a guest that comes out of a
// snapshot, beyond its configuration: connections whose other end knows nothing
// of it, and the programs that want to be told.
package restore

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// System calls that have the same number everywhere and no name in package syscall.
const (
	sysPidfdOpen  = 434
	sysPidfdGetfd = 438
	soProtocol    = 38
)

// ResetConnections cuts every TCP connection that leaves the machine: who holds
// it sees "connection reset" instead of waiting for an answer that cannot come.
// Connections within the guest stay. The links must be down, so that the other
// end, which belongs to the parent, is not told. It gives how many were cut.
func ResetConnections() int {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	seen := map[string]bool{}
	cut := 0
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil && pid != os.Getpid() {
			cut += resetOf(pid, seen)
		}
	}
	return cut
}

// resetOf cuts the connections of one process; seen holds the sockets that were looked at.
func resetOf(pid int, seen map[string]bool) int {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	names, err := os.ReadDir(dir)
	if err != nil || len(names) == 0 {
		// A kernel thread, or gone.
		return 0
	}
	pidfd, _, e := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if e != 0 {
		return 0
	}
	defer syscall.Close(int(pidfd))
	cut := 0
	for _, n := range names {
		link, err := os.Readlink(dir + "/" + n.Name())
		if err != nil || !strings.HasPrefix(link, "socket:") || seen[link] {
			continue
		}
		seen[link] = true
		number, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		fd, _, e := syscall.Syscall(sysPidfdGetfd, pidfd, uintptr(number), 0)
		if e != 0 {
			continue
		}
		if leaves(int(fd)) && disconnect(int(fd)) {
			cut++
		}
		_ = syscall.Close(int(fd))
	}
	return cut
}

// leaves tells whether fd is a TCP connection with another machine.
func leaves(fd int) bool {
	protocol, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, soProtocol)
	if err != nil || protocol != syscall.IPPROTO_TCP {
		return false
	}
	peer, err := syscall.Getpeername(fd)
	if err != nil {
		return false
	}
	own, err := syscall.Getsockname(fd)
	return err == nil && !isLoopback(peer) && !isLoopback(own)
}

func isLoopback(sa syscall.Sockaddr) bool {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return a.Addr[0] == 127
	case *syscall.SockaddrInet6:
		mapped := [12]byte{10: 0xff, 11: 0xff}
		return a.Addr == [16]byte{15: 1} || [12]byte(a.Addr[:12]) == mapped && a.Addr[12] == 127
	}
	return false
}

// disconnect makes the kernel forget a connection: its holder gets ECONNRESET.
func disconnect(fd int) bool {
	unspecified := syscall.RawSockaddr{Family: syscall.AF_UNSPEC}
	_, _, e := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	return e == 0
}
