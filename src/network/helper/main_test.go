package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
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

// TestConnectOutlastsSignals: a signal of Go's own is no reason to give up.
func TestConnectOutlastsSignals(t *testing.T) {
	if err := inNetns("/proc/self/ns/net", func() error { return nil }); err != nil {
		t.Skip("who may not enter namespaces connects nowhere: ", err)
	}
	address, thread, result := silent(t), make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		thread <- syscall.Gettid()
		_, err := connectTCP("/proc/self/ns/net", address, 300)
		result <- err
	}()
	tid := <-thread
	for {
		select {
		case err := <-result:
			if err != syscall.ETIMEDOUT {
				t.Error(err)
			}
			return
		case <-time.After(time.Millisecond):
			_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(tid), uintptr(syscall.SIGURG))
		}
	}
}

// TestLogsInOrder: whatever the order in which requests are carried out, what is open in the end is the log that was
// asked for last, and never two of one VM at a time: the kernel gives a group to one.
func TestLogsInOrder(t *testing.T) {
	logs := newLogs(nil)
	var open atomic.Int32
	logs.open = func(string, uint16) (*os.File, error) {
		if open.Load() != 0 {
			return nil, errors.New("the group is taken")
		}
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { write.Close() })
		open.Add(1)
		return read, nil
	}
	closed := func(log *packetLog) {
		<-log.done
		open.Add(-1)
	}
	// Stopped before it has begun.
	early := logs.expect("vm", 1)
	logs.stop("vm", 1)
	if err := logs.start(early, "", 1); err != nil {
		t.Fatal(err)
	}
	closed(early)
	// Asked for anew while it is open; the second is carried out while the first is not closed yet.
	first := logs.expect("vm", 2)
	if err := logs.start(first, "", 1); err != nil {
		t.Fatal(err)
	}
	second := logs.expect("vm", 3)
	before, gate := second.after, make(chan struct{})
	second.after = gate
	result := make(chan error)
	go func() { result <- logs.start(second, "", 1) }()
	<-before
	closed(first)
	close(gate)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	// A word for the first one that comes late is none for the second.
	logs.stop("vm", 2)
	second.mu.Lock()
	defer second.mu.Unlock()
	if second.ended || second.file == nil || logs.byVm["vm"] != second {
		t.Error("the log that was asked for last does not run")
	}
}

// TestLogsOfTheKernel: the same with the kernel's groups.
func TestLogsOfTheKernel(t *testing.T) {
	const netns, group = "/proc/self/ns/net", 40961
	probe, err := openLog(netns, group)
	if err != nil {
		t.Skip("who may not read packet logs, or another test does: ", err)
	}
	probe.Close()
	conn := helper(t)
	const rounds = 200
	go func() {
		for id := 1; id <= rounds; id++ {
			fmt.Fprintf(conn, `{"id":%d,"op":"log","vm":"vm","log":%d,"netns":%q,"group":%d}`+"\n", id, id, netns, group)
			if id%2 == 0 && id < rounds {
				fmt.Fprintf(conn, `{"id":%d,"op":"unlog","vm":"vm","log":%d}`+"\n", rounds+id, id)
			}
		}
	}()
	lines := bufio.NewScanner(conn)
	for left := rounds + rounds/2 - 1; left > 0; left-- {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var answer reply
		if err := json.Unmarshal(lines.Bytes(), &answer); err != nil || !answer.OK {
			t.Errorf("%s (%v)", lines.Text(), err)
		}
	}
	if again, err := openLog(netns, group); err == nil {
		again.Close()
		t.Error("the log that was asked for last is not open")
	}
}
