// Package sshd is the server of one connection of ssh, whose bytes come over the agent's channel:
// nothing listens anywhere. It takes an order of the agent and a connection, runs commands as package
// run does for exec, and forwards ports, sockets and the client's ssh agent.
package sshd

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/wire"
)

const (
	// loginWait is how long a client may take to log in.
	loginWait = 2 * time.Minute
	// maxOrder bounds the order's line in bytes: arguments and environment of a guest fit.
	maxOrder = 16 << 20
)

// transport is standard input and output as a connection.
type transport struct {
	io.Reader
	*gather
	closeIt func() error
}

func (t *transport) Close() error { return t.closeIt() }

// The connection has neither addresses nor deadlines.
func (t *transport) LocalAddr() net.Addr                { return &net.UnixAddr{Name: "vmsan", Net: "unix"} }
func (t *transport) RemoteAddr() net.Addr               { return t.LocalAddr() }
func (t *transport) SetDeadline(time.Time) error        { return nil }
func (t *transport) SetReadDeadline(t2 time.Time) error { return nil }
func (t *transport) SetWriteDeadline(time.Time) error   { return nil }

// Server serves one connection.
type Server struct {
	host *run.Host
	// program is executed for sftp, with the argument "sftp".
	program string
	order   wire.SSHOrder
	user    *proc.User
	home    string
	conn    *ssh.ServerConn
	// endings are called when the connection is over.
	endings endings
	agent   forwardedAgent
	listens listeners
}

// endings are things to undo at a connection's end.
type endings struct {
	mu   sync.Mutex
	over bool
	all  map[int]func()
	next int
}

// add has f called at the end, at once if it has come; the function given undoes that.
func (e *endings) add(f func()) (remove func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		f()
		return func() {}
	}
	if e.all == nil {
		e.all = map[int]func(){}
	}
	n := e.next
	e.next++
	e.all[n] = f
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.all, n)
	}
}

func (e *endings) run() {
	e.mu.Lock()
	all := e.all
	e.over, e.all = true, nil
	e.mu.Unlock()
	for _, f := range all {
		f()
	}
}

// Serve reads an order and serves the connection behind it until that ends or stop is closed. Commands
// of the connection are not waited for: with the process their terminals and pipes are closed, as those of
// every server of ssh.
func Serve(in, out *os.File, host *run.Host, program string, stop <-chan struct{}) error {
	r := bufio.NewReaderSize(in, 64<<10)
	s := &Server{host: host, program: program}
	if err := s.readOrder(r); err != nil {
		return err
	}
	config, err := s.config()
	if err != nil {
		return err
	}
	g := newGather(out)
	closed := sync.OnceValue(func() error {
		g.close()
		return errors.Join(in.Close(), out.Close())
	})
	t := &transport{Reader: r, gather: g, closeIt: closed}
	go func() {
		<-stop
		_ = t.Close() // ends the connection, however far it is
	}()
	login := time.AfterFunc(loginWait, func() { _ = t.Close() })
	conn, channels, requests, err := ssh.NewServerConn(t, config)
	login.Stop()
	var refused *ssh.ServerAuthError
	if errors.As(err, &refused) || errors.Is(err, io.EOF) {
		return nil // the client knows, or did not want it
	}
	if err != nil {
		return err
	}
	s.conn = conn
	defer s.endings.run()
	go s.answer(requests)
	for c := range channels {
		go s.open(c)
	}
	return nil
}

func (s *Server) readOrder(r *bufio.Reader) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxOrder {
			return fmt.Errorf("no order of the agent: %w", err)
		}
	}
	if err := json.Unmarshal(line, &s.order); err != nil {
		return fmt.Errorf("the agent's order: %w", err)
	}
	if len(s.order.HostKey) != ed25519.SeedSize {
		return errors.New("the agent's order has no host key")
	}
	env := s.order.Env
	s.host.Env = func() []string { return env }
	return nil
}

// version names OpenSSH, since clients go by that name: the order of the two names of a symbolic link in sftp is OpenSSH's
// here as with every server of pkg/sftp, and AsyncSSH, npm's ssh2 and libssh send the other one to whoever is not called so.
const version = "SSH-2.0-OpenSSH_9.9 vmsan"

// config says who may log in: whoever has a key of the order, as any user of the guest.
func (s *Server) config() (*ssh.ServerConfig, error) {
	var known [][]byte
	for _, line := range s.order.AuthorizedKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("the key %.80q: %w", line, err)
		}
		known = append(known, key.Marshal())
	}
	hostKey, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(s.order.HostKey))
	if err != nil {
		return nil, err
	}
	config := &ssh.ServerConfig{
		ServerVersion: version,
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			for _, k := range known {
				if bytes.Equal(k, key.Marshal()) {
					return nil, s.become(meta.User())
				}
			}
			return nil, errors.New("this key may not log in")
		},
	}
	config.AddHostKey(hostKey)
	return config, nil
}

// become makes name the connection's user. Why that cannot be is said before the login fails.
func (s *Server) become(name string) error {
	user, err := proc.LookupUser(s.host.Etc, name)
	if err != nil {
		return &ssh.BannerError{Err: err, Message: explain(err)}
	}
	s.user, s.home = user, user.Home
	if fi, err := os.Stat(s.home); err != nil || !fi.IsDir() || s.home == "/" {
		s.home = string(s.order.Workdir)
		if s.home == "" {
			s.home = "/"
		}
	}
	return nil
}

// explain gives an error as text for a terminal.
func explain(err error) string {
	info := wire.AsInfo(err, wire.CodeInternal, "The guest failed.")
	text := "vmsan: " + info.Message + "\r\n"
	if info.Why != "" {
		text += "  Why: " + info.Why + "\r\n"
	}
	if info.Fix != "" {
		text += "  Fix: " + info.Fix + "\r\n"
	}
	return text
}

// open takes a channel that the client opens.
func (s *Server) open(c ssh.NewChannel) {
	switch c.ChannelType() {
	case "session":
		s.session(c)
	case "direct-tcpip":
		s.directTCP(c)
	case "direct-streamlocal@openssh.com":
		s.directUnix(c)
	default:
		_ = c.Reject(ssh.UnknownChannelType, "there are no such channels") // the connection is over
	}
}

// answer takes requests that belong to no channel.
func (s *Server) answer(requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "tcpip-forward":
			s.listenTCP(r)
		case "streamlocal-forward@openssh.com":
			s.listenUnix(r)
		case "cancel-tcpip-forward":
			s.cancelTCP(r)
		case "cancel-streamlocal-forward@openssh.com":
			s.cancelUnix(r)
		default:
			// Among them a client's question whether the server is alive.
			reply(r, false)
		}
	}
}

// reply answers a request of a client that wants an answer.
func reply(r *ssh.Request, ok bool) {
	if r.WantReply {
		_ = r.Reply(ok, nil) // the connection is over
	}
}
