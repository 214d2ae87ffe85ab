package client

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vmsan/guest/internal/wire"
)

const (
	// maxReply bounds a reply's body; a VM's view has a few KiB.
	maxReply = 4 << 20
	// maxSunPath fits sockaddr_un with its final NUL.
	maxSunPath = 107
)

// Daemon is the daemon of one VMSAN_DIR.
type Daemon struct {
	// Socket is absolute and of any length.
	Socket string
	// Version of this client: a daemon of another one refuses every call.
	Version string
}

// SocketOf gives the socket of the environment's VMSAN_DIR. False without a home.
func SocketOf(getenv func(string) string) (string, bool) {
	dir := getenv("VMSAN_DIR")
	if dir == "" {
		home := getenv("HOME")
		if home == "" {
			return "", false
		}
		dir = filepath.Join(home, ".vmsan")
	}
	dir, err := filepath.Abs(dir)
	return filepath.Join(dir, "run", "daemon.sock"), err == nil
}

// VM is what a command needs to know of a VM, as `GET /v1/vms/REF` has it.
type VM struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// TimeoutMs is the VM's time limit, TimeoutAt when it will be stopped at it, StopReason why it was stopped.
	TimeoutMs  int64     `json:"timeoutMs"`
	TimeoutAt  time.Time `json:"timeoutAt"`
	StopReason string    `json:"stopReason"`

	Image *struct {
		Name   string `json:"name"`
		Config struct {
			Entrypoint wire.Texts `json:"entrypoint"`
			Cmd        wire.Texts `json:"cmd"`

			Env        wire.Texts `json:"env"`
			User       wire.Text  `json:"user"`
			WorkingDir wire.Text  `json:"workingDir"`
		} `json:"config"`
	} `json:"image"`
	Defaults struct {
		Env     wire.Texts `json:"env"`
		User    wire.Text  `json:"user"`
		Workdir wire.Text  `json:"workdir"`
	} `json:"defaults"`
}

// Conn is a connection to the daemon.
type Conn struct {
	net.Conn
	in *bufio.Reader
	d  *Daemon
}

// Read takes what the daemon sends.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Dial connects.
func (d *Daemon) Dial() (*Conn, error) {
	path := d.Socket
	if len(path) > maxSunPath {
		// The same socket in a few bytes: through an open descriptor of its directory.
		dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		path = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10), d: d}, nil
}

// View asks for a VM by its ID or name. An *wire.ErrorInfo is the daemon's refusal.
func (c *Conn) View(ref string) (*VM, error) {
	if err := c.send("GET", "/v1/vms/"+ref, "HTTP/1.1", "", nil); err != nil {
		return nil, err
	}
	status, body, err := c.reply()
	if err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, refusal(status, body)
	}
	vm := &VM{}
	if err := json.Unmarshal(body, vm); err != nil || vm.ID == "" {
		return nil, fmt.Errorf("the daemon's reply is not a VM: %w", err)
	}
	return vm, nil
}

// Upgrade makes the connection a stream of a VM's agent. An *wire.ErrorInfo is the daemon's refusal.
func (c *Conn) Upgrade(path string) error {
	if err := c.send("POST", path, "HTTP/1.1", "connection: Upgrade\r\nupgrade: vmsan-stream\r\n", nil); err != nil {
		return err
	}
	status, body, err := c.reply()
	if err != nil {
		return err
	}
	if status != 101 {
		return refusal(status, body)
	}
	return nil
}

func (c *Conn) send(method, path, proto, headers string, body []byte) error {
	_, err := fmt.Fprintf(c, "%s %s %s\r\nhost: vmsan\r\nvmsan-version: %s\r\n%s\r\n%s",
		method, path, proto, c.d.Version, headers, body)
	return err
}

// reply reads a status and a body of known length, which is how the daemon sends JSON.
func (c *Conn) reply() (int, []byte, error) {
	status, length, err := c.head()
	if err != nil {
		return 0, nil, err
	}
	body := make([]byte, length)
	_, err = io.ReadFull(c, body)
	return status, body, err
}

// head reads a reply's status and the length of its body; 0 where none is said.
func (c *Conn) head() (status, length int, err error) {
	line, err := c.line()
	if err != nil {
		return 0, 0, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err = strconv.Atoi(code)
	if err != nil || proto != "HTTP/1.1" {
		return 0, 0, errors.New("the daemon's reply is not HTTP/1.1")
	}
	for {
		line, err := c.line()
		if err != nil {
			return 0, 0, err
		}
		if line == "" {
			return status, length, nil
		}
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "content-length":
			length, err = strconv.Atoi(strings.TrimSpace(value))
			if err != nil || length < 0 || length > maxReply {
				return 0, 0, errors.New("the daemon's reply has no usable length")
			}
		case "transfer-encoding":
			return 0, 0, errors.New("the daemon's reply comes in chunks")
		}
	}
}

func (c *Conn) line() (string, error) {
	line, err := c.in.ReadSlice('\n')
	return strings.TrimRight(string(line), "\r\n"), err
}

// refusal is the error in a reply's body.
func refusal(status int, body []byte) error {
	var given struct{ Error *wire.ErrorInfo }
	if json.Unmarshal(body, &given) == nil && given.Error != nil && given.Error.Code != "" {
		return given.Error
	}
	return fmt.Errorf("the daemon answered with status %d", status)
}

// NotListening tells whether nobody serves the socket.
func NotListening(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// Fatal tells whether trying again cannot help: the VM is gone, cannot be woken, or its agent is of another version.
func Fatal(err error) bool {
	var info *wire.ErrorInfo
	if !errors.As(err, &info) {
		return false
	}
	switch info.Code {
	case wire.CodeVersion, "ERR_AGENT_CLOSED", "ERR_MOUNT_SOURCE":
		return true
	}
	// The last two: it cannot be woken.
	return slices.ContainsFunc([]string{"ERR_VM_", "ERR_VALIDATION_", "ERR_SNAPSHOT_", "ERR_VOLUME_"}, func(prefix string) bool {
		return strings.HasPrefix(info.Code, prefix)
	})
}

// asleep tells whether the VM sleeps: its streams are there, and go on with it.
func asleep(err error) bool {
	var info *wire.ErrorInfo
	return errors.As(err, &info) && info.Code == "ERR_AGENT_ASLEEP"
}
