package kinds

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// maxProgram bounds the program that the host sends.
const maxProgram = 64 << 20

// killAfter is how long a server of ssh may take to end by itself.
const killAfter = 2 * time.Second

// ssh is what the host has given for connections of kind ssh. The program comes when it is first
// needed: a VM that nobody reaches by ssh pays nothing for it.
type ssh struct {
	mu      sync.Mutex
	hostKey []byte
	// program is a file in memory, nil while there is none.
	program *os.File
	digest  string
}

// PrepareSSH takes the VM's host key (a seed of Ed25519) and tells whether the program with that SHA-256 is here.
func (h *Host) PrepareSSH(hostKey []byte, digest string) bool {
	h.ssh.mu.Lock()
	defer h.ssh.mu.Unlock()
	h.ssh.hostKey = hostKey
	return h.ssh.program != nil && h.ssh.digest == digest
}

// ForgetSSH is for a guest that has become another one: the host key was the old one's.
func (h *Host) ForgetSSH() {
	h.ssh.mu.Lock()
	defer h.ssh.mu.Unlock()
	h.ssh.hostKey = nil
}

// startProgram is kind program: its input is the program for connections of kind ssh.
func (h *Host) startProgram(s *stream.Stream) (stream.Job, error) {
	file, err := memoryFile()
	if err != nil {
		return nil, wire.Errorf(wire.CodeLimit, "The guest cannot make a file in its memory.").Because(err)
	}
	return begin(s, func(*work) error {
		digest := sha256.New()
		n, err := io.Copy(io.MultiWriter(file, digest), io.LimitReader(s.Input(), maxProgram+1))
		s.CloseInput()
		if err == nil && n > maxProgram {
			err = wire.Errorf(wire.CodeLimit, "The program has more than %d bytes.", maxProgram)
		}
		var program *os.File
		if err == nil {
			// A file that is open for writing cannot be executed.
			program, err = os.Open(fdPath(file))
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		h.ssh.mu.Lock()
		defer h.ssh.mu.Unlock()
		if h.ssh.program != nil {
			_ = h.ssh.program.Close() // whoever executes it keeps it
		}
		h.ssh.program, h.ssh.digest = program, hex.EncodeToString(digest.Sum(nil))
		return nil
	}), nil
}

// memoryFile makes a file that lies in memory only and may be executed.
func memoryFile() (*os.File, error) {
	const cloexec, exec = 1, 0x10
	name, err := syscall.BytePtrFromString("vmsan-ssh")
	if err != nil {
		return nil, err
	}
	// Kernels before 6.3 know no MFD_EXEC, and let every such file be executed.
	for _, flags := range []uintptr{cloexec | exec, cloexec} {
		fd, _, e := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(name)), flags, 0)
		if e == 0 {
			return os.NewFile(fd, "vmsan-ssh"), nil
		}
		err = e
	}
	return nil, os.NewSyscallError("memfd_create", err)
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// startSSH is kind ssh: a server for one connection, which is the stream's input and output.
func (h *Host) startSSH(s *stream.Stream) (stream.Job, error) {
	root, err := proc.LookupUser(h.Etc, "")
	if err != nil {
		return nil, err
	}
	h.ssh.mu.Lock()
	defer h.ssh.mu.Unlock()
	if h.ssh.program == nil || h.ssh.hostKey == nil {
		return nil, wire.Errorf(wire.CodeSSH, "The guest is not ready for ssh.").
			Because("it has started anew, or is another VM's clone").Remedy("Connect again.")
	}
	order := append(wire.JSON(wire.SSHOrder{
		HostKey: h.ssh.hostKey, AuthorizedKeys: s.Spec.AuthorizedKeys, Workdir: s.Spec.Workdir,
		Env: proc.Environment(h.Env(), s.Spec.Env),
	}), '\n')
	c, err := h.start(s, &run.Request{
		ID: s.Spec.ID, Program: fdPath(h.ssh.program), Argv: []string{"vmsan-ssh"}, User: root, Stdin: true,
	}, ordered{s, io.MultiReader(bytes.NewReader(order), s.Input())})
	if err != nil {
		return nil, err
	}
	return server{c, s}, nil
}

// ordered is a stream whose input has an order in front.
type ordered struct {
	*stream.Stream
	in io.Reader
}

// Input implements run.Ends.
func (o ordered) Input() io.Reader { return o.in }

// server is the Job of kind ssh.
type server struct {
	*run.Command
	s *stream.Stream
}

// Signal implements stream.Job: any signal ends the connection. What its user has left behind (a
// terminal multiplexer) goes on, as after the end of any connection of ssh.
func (j server) Signal(syscall.Signal, bool) error {
	time.AfterFunc(killAfter, func() {
		select {
		case <-j.s.Done():
		default:
			_ = j.Command.Signal(syscall.SIGKILL, false) // it may just have ended
		}
	})
	return j.Command.Signal(syscall.SIGTERM, false)
}

// Abandoned implements stream.Deserted: bytes may be lost from now on.
func (j server) Abandoned() {
	_ = j.Signal(syscall.SIGTERM, false) // it may just have ended
}
