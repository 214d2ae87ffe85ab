// Command fileserver serves directories of the host to one VM (package fileserver). The
// daemon starts it when the VM runs, with a file that holds its orders as JSON; it ends when its connection to the VM does, which is the VM's end, and needs the daemon for
// nothing in between. As `fileserver --attributes` it reads files' extended attributes for a build's context; with `--pack DIR` and
// `--unpack DIR` it writes and reads the archive of a shared volume. All three are what Node.js cannot do.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/fileserver"
	"vmsan/guest/internal/sharewire"
)

// order is the daemon's.
type order struct {
	// Socket is the path of a unix socket that leads to the VM.
	Socket string `json:"socket"`
	// VsockPort is asked for first, if not 0, by Firecracker's CONNECT.
	VsockPort int `json:"vsockPort"`
	// Token is the VM's, 32 hexadecimal digits.
	Token  string               `json:"token"`
	Shares []fileserver.Options `json:"shares"`
	// State is the name of the file with what is known of them, from one time that the VM's
	// memory is in a file to the next.
	State string `json:"state"`
}

// connectWait is how long the VM's end may take to appear.
const connectWait = 2 * time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vmsan-fileserver:", err)
		os.Exit(1)
	}
}

func run() error {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "--pack":
		return pack(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "--unpack":
		return unpack(os.Args[2])
	case len(os.Args) != 2:
		return errors.New("is started by vmsan's daemon, not by hand")
	case os.Args[1] == "--attributes":
		return attributes(os.Stdin, os.Stdout)
	}
	b, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(b, &o); err != nil || len(o.Shares) == 0 {
		return errors.New("the order makes no sense")
	}
	token, err := hex.DecodeString(o.Token)
	if err != nil || len(token) != channel.TokenLen {
		return errors.New("the token is not 32 hexadecimal digits")
	}
	// One request follows the other: with more than one processor Go wakes a thread for each that finds nothing to
	// do. What waits for a disk keeps nobody: that thread's place is given away.
	runtime.GOMAXPROCS(1)
	// Modes are the guest's, which has its own mask.
	syscall.Umask(0)
	if err := fileserver.Confine(); err != nil {
		return err
	}
	for deadline := time.Now().Add(connectWait); ; time.Sleep(50 * time.Millisecond) {
		c, err := connect(o)
		if err == nil {
			err = greet(c, token)
			if err == nil {
				return fileserver.Serve(c, o.Shares, o.State)
			}
			_ = c.Close() // it has just failed
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the VM cannot be reached: %w", err)
		}
	}
}

// connect opens a stream to the VM.
func connect(o order) (*sharewire.Conn, error) {
	c, err := net.Dial("unix", o.Socket)
	if err != nil {
		return nil, err
	}
	conn := sharewire.NewConn(c)
	if o.VsockPort == 0 {
		return conn, nil
	}
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", o.VsockPort); err != nil {
		_ = c.Close() // as the error says
		return nil, err
	}
	line, err := conn.Line()
	if err == nil && !strings.HasPrefix(line, "OK ") {
		err = fmt.Errorf("the VMM answers %.64q", line)
	}
	if err != nil {
		_ = c.Close() // as above
		return nil, err
	}
	return conn, nil
}

// greet sends RESET and waits for its echo (protocol section 2).
func greet(c *sharewire.Conn, token []byte) error {
	var nonce [channel.NonceLen]byte
	_, _ = rand.Read(nonce[:]) // never fails on Linux
	echo := append(token[:len(token):len(token)], nonce[:]...)
	if err := c.Raw(append([]byte(channel.Magic), echo...)); err != nil {
		return err
	}
	return c.Skip(echo)
}
