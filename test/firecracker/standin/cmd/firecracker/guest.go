package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// guest is the agent, which lies in the initramfs as /init, run as a process of its own.
type guest struct {
	mu     sync.Mutex
	socket string
	pid    int
	up     bool
	paused bool
	conns  map[net.Conn]bool
	// resumed is signalled when paused ends.
	resumed *sync.Cond
}

// boot starts the guest out of an initramfs (at the beginning of the file at path).
func boot(m *machine, path, console string) (*guest, error) {
	agent := filepath.Join(m.dir, "guest-init")
	if err := extractInit(path, agent); err != nil {
		return nil, err
	}
	if err := furnish(m); err != nil {
		return nil, err
	}
	fmt.Print(console)
	g := &guest{socket: filepath.Join(m.dir, "guest.sock"), conns: map[net.Conn]bool{}}
	g.resumed = sync.NewCond(&g.mu)
	_ = os.Remove(g.socket)
	started := make(chan error)
	go func() {
		// The kernel kills the child when the thread that made it ends, so it must stay.
		runtime.LockOSThread()
		cmd := exec.Command(agent, "serve", "--unix", g.socket)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		err := start(cmd, m.Cards, g)
		if err == nil {
			g.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait()
			// A guest that reboots or panics ends Firecracker with status 0.
			os.Exit(0)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	go func() {
		time.Sleep(time.Duration(m.faults.BootMs) * time.Millisecond)
		g.mu.Lock()
		g.up = true
		g.mu.Unlock()
	}()
	return g, nil
}

// furnish makes of a jail what a guest's root file system has: users (all of them the one that
// there is) and the directories that commands use.
func furnish(m *machine) error {
	if m.dir != "/run" {
		return nil
	}
	uid := os.Getuid()
	if len(m.Cards) > 0 {
		uid = unknownUser
	}
	for _, dir := range []string{"/etc", "/tmp", "/home/ubuntu"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	users := ""
	for _, name := range []string{"root", "ubuntu"} {
		users += fmt.Sprintf("%s:x:%d:%d::/home/ubuntu:\n", name, uid, uid)
	}
	return os.WriteFile("/etc/passwd", []byte(users), 0o644)
}

// start runs the guest, behind its first card if there is one.
func start(cmd *exec.Cmd, cards []*card, g *guest) error {
	if len(cards) == 0 {
		return cmd.Start()
	}
	card := cards[0]
	cmd.Args = append(cmd.Args, "--network")
	end, err := inNetwork(cmd, card.MAC)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("a user namespace for the guest: %w", err)
	}
	_ = cmd.ExtraFiles[0].Close()
	inside, err := receiveCard(end)
	if err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	go carry(card.tap, inside, g.hold)
	go carry(inside, card.tap, g.hold)
	return nil
}

// hold waits while the guest is paused.
func (g *guest) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.paused {
		g.resumed.Wait()
	}
}

func (g *guest) ready() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.up
}

func (g *guest) pause(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = on
	signal := syscall.SIGCONT
	if on {
		signal = syscall.SIGSTOP
	}
	_ = syscall.Kill(-g.pid, signal)
	g.resumed.Broadcast()
}

func (g *guest) dropConnections() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.conns {
		conn.Close()
	}
}

// bindVsock makes the socket at the PUT, as Firecracker does.
func (m *machine) bindVsock(path string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: %s", osError(err))
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	m.Vsock, m.listener = path, listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go m.vsock(conn)
		}
	}()
	return nil
}

const agentPort = 1024

// vsock serves one connection from the host: silence until the guest's driver is up, an end
// where nobody listens.
func (m *machine) vsock(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	port, bad := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "CONNECT "))
	if err != nil || bad != nil || !strings.HasPrefix(line, "CONNECT ") {
		return
	}
	m.mu.Lock()
	g := m.guest
	m.mu.Unlock()
	if !g.ready() {
		_, _ = io.Copy(io.Discard, in)
		return
	}
	if port != agentPort {
		return
	}
	inside, err := net.Dial("unix", g.socket)
	if err != nil {
		return
	}
	defer inside.Close()
	g.mu.Lock()
	g.conns[conn] = true
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.conns, conn)
		g.mu.Unlock()
	}()
	// The answer comes from the guest: a paused one gives none.
	g.hold()
	fmt.Fprintf(conn, "OK %d\n", 1073741824+port)
	go func() {
		_, _ = io.Copy(inside, in)
		_ = inside.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, inside)
}

// extractInit copies /init out of an uncompressed newc archive.
func extractInit(archive, output string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	at := int64(0)
	for {
		head := make([]byte, 110)
		if _, err := file.ReadAt(head, at); err != nil || string(head[:6]) != "070701" {
			return errors.New("the initramfs is not an uncompressed newc archive")
		}
		field := func(i int) int64 {
			v, _ := strconv.ParseInt(string(head[6+8*i:14+8*i]), 16, 64)
			return v
		}
		size, nameSize := field(6), field(11)
		name := make([]byte, nameSize)
		if _, err := file.ReadAt(name, at+110); err != nil {
			return err
		}
		data := (at + 110 + nameSize + 3) &^ 3
		switch strings.TrimRight(string(name), "\x00") {
		case "TRAILER!!!":
			return errors.New("Kernel panic - not syncing: No working init found.")
		case "init":
			_ = os.Remove(output)
			out, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
			if err != nil {
				return err
			}
			_, err = io.Copy(out, io.NewSectionReader(file, data, size))
			return errors.Join(err, out.Close())
		}
		at = (data + size + 3) &^ 3
	}
}
