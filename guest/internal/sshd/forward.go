package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"vmsan/guest/internal/files"
)

// dialWait bounds the time for a connection to be made.
const dialWait = 30 * time.Second

// maxListeners bounds what one connection may listen on.
const maxListeners = 256

// halfCloser is what TCP and unix connections have.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// join carries bytes both ways; each direction ends on its own.
func join(ch ssh.Channel, requests <-chan *ssh.Request, c net.Conn) {
	go ssh.DiscardRequests(requests)
	defer c.Close()
	defer ch.Close()
	var up sync.WaitGroup
	up.Go(func() {
		// An error here is the peer having closed: what it still sends counts.
		_, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{ch}, make([]byte, 32<<10))
		if h, ok := c.(halfCloser); ok && err == nil {
			_ = h.CloseWrite() // the peer may be gone
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, ch) // likewise
		}
	})
	_, err := io.CopyBuffer(struct{ io.Writer }{ch}, struct{ io.Reader }{c}, make([]byte, 32<<10))
	if err != nil {
		return // a connection that was cut is not to look like one that ended
	}
	_ = ch.CloseWrite() // the client may be gone
	up.Wait()
}

// accept joins a channel of the client's with a connection that dial makes.
func (s *Server) accept(c ssh.NewChannel, dial func() (net.Conn, error)) {
	conn, err := dial()
	if err != nil {
		_ = c.Reject(ssh.ConnectionFailed, err.Error()) // the connection is over
		return
	}
	ch, requests, err := c.Accept()
	if err != nil {
		_ = conn.Close() // nothing has been sent
		return
	}
	join(ch, requests, conn)
}

func (s *Server) directTCP(c ssh.NewChannel) {
	var d struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &d); err != nil || d.Port > 0xffff {
		_ = c.Reject(ssh.ConnectionFailed, "no address") // the connection is over
		return
	}
	s.accept(c, func() (net.Conn, error) {
		return net.DialTimeout("tcp", net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port))), dialWait)
	})
}

func (s *Server) directUnix(c ssh.NewChannel) {
	var d struct {
		Path     string
		Reserved string
		Number   uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &d); err != nil {
		_ = c.Reject(ssh.ConnectionFailed, "no path") // the connection is over
		return
	}
	s.accept(c, func() (conn net.Conn, err error) {
		err = files.As(s.user, false, func() (err error) {
			conn, err = net.DialTimeout("unix", d.Path, dialWait)
			return err
		})
		return conn, err
	})
}

// listeners are what the client asked to listen on, by what it will cancel them with.
type listeners struct {
	mu  sync.Mutex
	all map[string][]io.Closer
}

// add keeps listeners of name; false if it is taken or there are too many.
func (l *listeners) add(name string, open []io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string][]io.Closer{}
	}
	if l.all[name] != nil || len(l.all) >= maxListeners {
		return false
	}
	l.all[name] = open
	return true
}

// cancel ends the listeners of name; false if there are none.
func (l *listeners) cancel(name string) bool {
	l.mu.Lock()
	open := l.all[name]
	delete(l.all, name)
	l.mu.Unlock()
	closeAll(open)
	return open != nil
}

func closeAll(open []io.Closer) {
	for _, c := range open {
		_ = c.Close() // it listens no more, however that ends
	}
}

type forwardTCP struct {
	Host string
	Port uint32
}

// listenTCP listens in the guest for the client. Where a client names no address it is the loopback's.
func (s *Server) listenTCP(r *ssh.Request) {
	var f forwardTCP
	if ssh.Unmarshal(r.Payload, &f) != nil || f.Port > 0xffff || !s.mayBind(f.Port) {
		reply(r, false)
		return
	}
	open, port, err := listenAll(f)
	if err != nil {
		reply(r, false)
		return
	}
	all := make([]io.Closer, len(open))
	for i, l := range open {
		all[i] = l
	}
	name := "tcp " + net.JoinHostPort(f.Host, strconv.Itoa(int(port)))
	if !s.listens.add(name, all) {
		closeAll(all)
		reply(r, false)
		return
	}
	s.endings.add(func() { s.listens.cancel(name) })
	if r.WantReply {
		var bound []byte
		if f.Port == 0 {
			bound = ssh.Marshal(struct{ Port uint32 }{port})
		}
		_ = r.Reply(true, bound) // the connection is over
	}
	for _, l := range open {
		go s.offer(l, "forwarded-tcpip", func(c net.Conn) []byte {
			origin, _ := c.RemoteAddr().(*net.TCPAddr)
			return ssh.Marshal(struct {
				Host       string
				Port       uint32
				OriginHost string
				OriginPort uint32
			}{f.Host, port, origin.IP.String(), uint32(origin.Port)})
		})
	}
}

// listenAll listens on what f names; "localhost" is both loopback addresses, as far as there are any.
func listenAll(f forwardTCP) (open []net.Listener, port uint32, err error) {
	hosts := []string{f.Host}
	switch f.Host {
	case "", "*":
		hosts = []string{""}
	case "localhost":
		hosts = []string{"127.0.0.1", "::1"}
	}
	port = f.Port
	for _, host := range hosts {
		l, failed := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if failed != nil {
			err = failed
			continue
		}
		open = append(open, l)
		port = uint32(l.Addr().(*net.TCPAddr).Port)
	}
	if len(open) > 0 {
		err = nil
	}
	return open, port, err
}

// mayBind tells whether a program of the user's could listen on port itself.
func (s *Server) mayBind(port uint32) bool {
	if s.user.UID == 0 || port == 0 {
		return true
	}
	first := uint32(1024)
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
			first = uint32(n)
		}
	}
	return port >= first
}

func (s *Server) cancelTCP(r *ssh.Request) {
	var f forwardTCP
	ok := ssh.Unmarshal(r.Payload, &f) == nil
	reply(r, ok && s.listens.cancel("tcp "+net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))))
}

type forwardUnix struct{ Path string }

// listenUnix listens on a socket of the user's.
func (s *Server) listenUnix(r *ssh.Request) {
	var f forwardUnix
	var l *net.UnixListener
	err := ssh.Unmarshal(r.Payload, &f)
	if err == nil {
		l, err = s.ownSocket(f.Path)
	}
	if err != nil || !s.listens.add("unix "+f.Path, []io.Closer{l}) {
		if l != nil {
			_ = l.Close() // nobody has connected
		}
		reply(r, false)
		return
	}
	s.endings.add(func() { s.listens.cancel("unix " + f.Path) })
	reply(r, true)
	go s.offer(l, "forwarded-streamlocal@openssh.com", func(net.Conn) []byte {
		return ssh.Marshal(struct{ Path, Reserved string }{f.Path, ""})
	})
}

// ownSocket listens on a socket that the user alone may connect to.
func (s *Server) ownSocket(path string) (l *net.UnixListener, err error) {
	err = files.As(s.user, false, func() (err error) {
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		return errors.Join(os.Chmod(path, 0o600))
	})
	if err != nil && l != nil {
		_ = l.Close() // nobody has connected
	}
	return l, err
}

func (s *Server) cancelUnix(r *ssh.Request) {
	var f forwardUnix
	ok := ssh.Unmarshal(r.Payload, &f) == nil
	reply(r, ok && s.listens.cancel("unix "+f.Path))
}

// offer opens a channel to the client for each connection that a listener takes.
func (s *Server) offer(l net.Listener, kind string, about func(net.Conn) []byte) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// No descriptors left, or the peer is gone: try again.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go func() {
			ch, requests, err := s.conn.OpenChannel(kind, about(c))
			if err != nil {
				_ = c.Close() // the peer sees that nobody is there
				return
			}
			join(ch, requests, c)
		}()
	}
}
