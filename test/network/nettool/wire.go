package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"syscall"
	"unsafe"
)

// openTap enters a namespace (for good: the thread is kept) and opens a tap device there.
func openTap(netns, name string) int {
	runtime.LockOSThread()
	ns, err := os.Open(netns)
	fail(err)
	if _, _, errno := syscall.RawSyscall(sysSetns, ns.Fd(), 0x40000000, 0); errno != 0 {
		fail(fmt.Errorf("enter %s: %w", netns, errno))
	}
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	fail(err)
	var request [40]byte
	copy(request[:16], name)
	request[16], request[17] = 0x02, 0x10 // IFF_TAP | IFF_NO_PI
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), 0x400454ca, uintptr(unsafe.Pointer(&request))); errno != 0 {
		fail(fmt.Errorf("open tap %s in %s: %w", name, netns, errno))
	}
	return fd
}

// bridge carries frames between two taps: args are netns, name, netns, name.
func bridge(args []string) {
	if len(args) != 4 {
		fail(fmt.Errorf("bridge NETNS TAP NETNS TAP"))
	}
	fds := make([]int, 2)
	for i := range fds {
		done := make(chan int)
		go func() {
			done <- openTap(args[2*i], args[2*i+1])
			select {} // the thread stays in its namespace
		}()
		fds[i] = <-done
	}
	emit(map[string]string{"event": "ready"})
	go carry(fds[0], fds[1])
	carry(fds[1], fds[0])
}

// carry copies frames one way.
func carry(from, to int) {
	buffer := make([]byte, 70000)
	for {
		n, err := syscall.Read(from, buffer)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "nettool: bridge:", err)
			os.Exit(0)
		}
		// EIO while the other side is down: the frame is lost, as on a cable.
		syscall.Write(to, buffer[:n])
	}
}

// watch prints every mark (MARK-…) in packets of the namespace, with the interface.
func watch() {
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0x0300) // ETH_P_ALL
	fail(err)
	syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 8<<20)
	emit(map[string]string{"event": "ready"})
	mark := regexp.MustCompile(`MARK-[a-z0-9-]+`)
	buffer := make([]byte, 70000)
	for {
		n, from, err := syscall.Recvfrom(fd, buffer, 0)
		if err != nil {
			continue
		}
		if !bytes.Contains(buffer[:n], []byte("MARK-")) {
			continue
		}
		link := from.(*syscall.SockaddrLinklayer)
		emit(map[string]any{"event": "seen", "mark": string(mark.Find(buffer[:n])), "ifindex": link.Ifindex})
	}
}
