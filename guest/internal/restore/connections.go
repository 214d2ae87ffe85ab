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

// States of sockets in /proc/net/tcp that have no socket any more, or have no other end yet.
const (
	stateTimeWait = "06"
	stateListen   = "0A"
	stateNewSyn   = "0C"
)

// NoneLeaves tells whether it is certain that no TCP connection leaves the machine.
func NoneLeaves() bool { return noneLeaves("/proc/net") }

// noneLeaves tells whether the lists of this network namespace have every TCP socket of the machine, and none that
// leaves it. Then no process has to be looked at, which in an emulated guest is much.
func noneLeaves(dir string) bool {
	total, ok := allocated(dir)
	if !ok {
		return false
	}
	if total == 0 {
		return true
	}
	rows4, leaves4, ok4 := listed(dir+"/tcp", 8)
	rows6, leaves6, ok6 := listed(dir+"/tcp6", 32)
	return ok4 && ok6 && !leaves4 && !leaves6 && rows4+rows6 >= total
}

// allocated is how many TCP sockets the machine has, in all its network namespaces.
func allocated(dir string) (int, bool) {
	text, err := os.ReadFile(dir + "/sockstat")
	if err != nil {
		return 0, false
	}
	_, line, _ := strings.Cut(string(text), "\nTCP:")
	line, _, _ = strings.Cut(line, "\n")
	_, number, _ := strings.Cut(line, " alloc ")
	number, _, _ = strings.Cut(number, " ")
	n, err := strconv.Atoi(number)
	return n, err == nil
}

// listed reads a list of sockets whose addresses have so many digits: how many it has, and whether one leaves the machine.
func listed(path string, digits int) (rows int, leaves bool, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false, os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n") // the heading
	for line := range strings.Lines(rest) {
		words := strings.Fields(line)
		if len(words) < 4 || len(words[1]) != digits+5 || len(words[2]) != digits+5 {
			return 0, false, false
		}
		if words[3] == stateTimeWait || words[3] == stateNewSyn {
			continue
		}
		rows++
		if words[3] != stateListen && !withinMachine(words[1][:digits]) && !withinMachine(words[2][:digits]) {
			leaves = true
		}
	}
	return rows, leaves, true
}

// withinMachine tells whether an address as /proc/net/tcp writes it is a loopback one.
func withinMachine(address string) bool {
	const loopback6, mapped = "00000000000000000000000001000000", "0000000000000000FFFF0000"
	return address == loopback6 || strings.HasSuffix(strings.TrimPrefix(address, mapped), "7F") && (len(address) == 8 || strings.HasPrefix(address, mapped))
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
