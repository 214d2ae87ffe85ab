// Package restore is what the agent mends in a guest that comes out of a
// snapshot, beyond its configuration: connections whose other end knows nothing
// of it, and the programs that want to be told.
package restore

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
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

// ResetConnections cuts every TCP connection that leaves the machine, or that is one over its own addresses, which may be
// others by now: who holds it sees "connection reset" instead of waiting for an answer that cannot come.
// Connections within the guest stay, also those between its network namespaces, as of containers. The links must be down,
// so that the other end, which belongs to the parent, is not told. It gives how many were cut.
func ResetConnections(own []netip.Addr) int {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	seen := map[string]bool{}
	var all, queued []connection
	for _, n := range names {
		pid, err := strconv.Atoi(n.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		all = append(all, connectionsOf(pid, seen)...)
		if space, err := os.Readlink("/proc/" + n.Name() + "/ns/net"); err == nil && !seen[space] {
			seen[space] = true
			queued = append(queued, unaccepted("/proc/"+n.Name()+"/net")...)
		}
	}
	cut := 0
	for _, c := range leaving(all, queued, own) {
		fd := fetch(c.pid, c.number)
		if fd < 0 {
			continue
		}
		if disconnect(fd) {
			cut++
		}
		_ = syscall.Close(fd)
	}
	return cut
}

// connection is one that a process holds.
type connection struct {
	pid, number int
	local, peer netip.AddrPort
}

// leaving are those whose other end is in neither list, and those of which one end has one of the addresses.
// What a packet filter of the guest has translated has no other end here, and is cut as well.
func leaving(all, queued []connection, own []netip.Addr) []connection {
	type ends struct{ local, peer netip.AddrPort }
	here := map[ends]bool{}
	for _, c := range slices.Concat(all, queued) {
		here[ends{c.local, c.peer}] = true
	}
	var out []connection
	for _, c := range all {
		local, peer := c.local.Addr(), c.peer.Addr()
		switch {
		case local.IsLoopback() || peer.IsLoopback():
		case here[ends{c.peer, c.local}] && !slices.Contains(own, local) && !slices.Contains(own, peer):
		default:
			out = append(out, c)
		}
	}
	return out
}

// States of sockets in /proc/net/tcp: those that have no socket any more, or have no other end yet, and those that can be
// sent to.
const (
	stateEstablished = "01"
	stateCloseWait   = "08"
	stateTimeWait    = "06"
	stateListen      = "0A"
	stateNewSyn      = "0C"
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

// unaccepted are the ends of connections in a network namespace's lists that wait for a program to accept them: no
// process has a descriptor of such a one.
func unaccepted(dir string) []connection {
	var out []connection
	for _, list := range []string{"/tcp", "/tcp6"} {
		text, err := os.ReadFile(dir + list)
		if err != nil {
			continue // gone, or a kernel without version 6
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) < 10 || words[9] != "0" || words[3] != stateEstablished && words[3] != stateCloseWait {
				continue
			}
			local, peer := listedEnd(words[1]), listedEnd(words[2])
			if local.IsValid() && peer.IsValid() {
				out = append(out, connection{0, -1, local, peer})
			}
		}
	}
	return out
}

// listedEnd reads an address as /proc/net/tcp writes it: words of the machine's byte order, and a port.
func listedEnd(text string) netip.AddrPort {
	digits, portDigits, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portDigits, 16, 16)
	bytes, bad := hex.DecodeString(digits)
	if err != nil || bad != nil || len(bytes)%4 != 0 {
		return netip.AddrPort{}
	}
	for at := 0; at < len(bytes); at += 4 {
		binary.NativeEndian.PutUint32(bytes[at:], binary.BigEndian.Uint32(bytes[at:]))
	}
	address, ok := netip.AddrFromSlice(bytes)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(port))
}

// withinMachine tells whether an address as /proc/net/tcp writes it is a loopback one.
func withinMachine(address string) bool {
	const loopback6, mapped = "00000000000000000000000001000000", "0000000000000000FFFF0000"
	return address == loopback6 || strings.HasSuffix(strings.TrimPrefix(address, mapped), "7F") && (len(address) == 8 || strings.HasPrefix(address, mapped))
}

// connectionsOf are the connections of one process; seen holds the sockets that were looked at.
func connectionsOf(pid int, seen map[string]bool) []connection {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	names, err := os.ReadDir(dir)
	if err != nil || len(names) == 0 {
		// A kernel thread, or gone.
		return nil
	}
	var out []connection
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
		fd := fetch(pid, number)
		if fd < 0 {
			continue
		}
		if local, peer, ok := endsOf(fd); ok {
			out = append(out, connection{pid, number, local, peer})
		}
		_ = syscall.Close(fd)
	}
	return out
}

// fetch gives a copy of another process's descriptor, -1 if there is none.
func fetch(pid, number int) int {
	pidfd, _, e := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if e != 0 {
		return -1
	}
	defer syscall.Close(int(pidfd))
	fd, _, e := syscall.Syscall(sysPidfdGetfd, pidfd, uintptr(number), 0)
	if e != 0 {
		return -1
	}
	return int(fd)
}

// endsOf gives the ends of fd if it is a TCP connection.
func endsOf(fd int) (local, peer netip.AddrPort, ok bool) {
	protocol, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, soProtocol)
	if err != nil || protocol != syscall.IPPROTO_TCP {
		return local, peer, false
	}
	far, err := syscall.Getpeername(fd)
	if err != nil {
		return local, peer, false
	}
	near, err := syscall.Getsockname(fd)
	if err != nil {
		return local, peer, false
	}
	local, peer = endOf(near), endOf(far)
	return local, peer, local.IsValid() && peer.IsValid()
}

// endOf is a socket's address; one of version 4 in version 6 is that of version 4.
func endOf(sa syscall.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// disconnect makes the kernel forget a connection: its holder gets ECONNRESET.
func disconnect(fd int) bool {
	unspecified := syscall.RawSockaddr{Family: syscall.AF_UNSPEC}
	_, _, e := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	return e == 0
}
