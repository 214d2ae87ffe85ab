package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestMain is the helper where a test has started it.
func TestMain(m *testing.M) {
	if os.Getenv("NODE_CHANNEL_FD") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// helper starts one and gives the daemon's end of its channel.
func helper(t *testing.T) net.Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, its := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "its")
	defer ours.Close()
	defer its.Close()
	command := exec.Command(os.Args[0])
	command.Args = command.Args[:1]
	command.Env = append(os.Environ(), "NODE_CHANNEL_FD=3")
	command.ExtraFiles = []*os.File{its}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// silent gives the address of a listener that lets nobody in any more.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	// The one that it has room for.
	first, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return address
}

// TestConnectsHoldNobodyUp: however many wait for guests that do not answer, the next request is done before them.
func TestConnectsHoldNobodyUp(t *testing.T) {
	if err := inNetns("/proc/self/ns/net", func() error { return nil }); err != nil {
		t.Skip("who may not enter namespaces connects nowhere: ", err)
	}
	conn, address := helper(t), silent(t)
	go func() {
		for id := 1; id <= 600; id++ {
			fmt.Fprintf(conn, `{"id":%d,"op":"connect","netns":"/proc/self/ns/net","address":%q,"timeoutMs":30000}`+"\n", id, address)
		}
		fmt.Fprintln(conn, `{"id":1000,"op":"run","argv":["true"],"timeoutMs":60000}`)
	}()
	lines := bufio.NewScanner(conn)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	var first reply
	if err := json.Unmarshal(lines.Bytes(), &first); err != nil {
		t.Fatal(err)
	}
	if first.ID != 1000 || !first.OK || first.Run == nil || first.Run.Code != 0 {
		t.Errorf("first of all came %s", lines.Text())
	}
}
