package channel

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// maxConns bounds the connections of one listener.
const maxConns = 256

// Listen serves each connection that l accepts as a stream of its own until l is closed.
func Listen(l net.Listener, pin *Pin, serve func(net.Conn)) error {
	return listen(l, func(c net.Conn) error { return runSocket(c, pin, serve) })
}

// ListenDirect is to Listen as RunDirect is to Run.
func ListenDirect(l net.Listener, pin *Pin, direct func(net.Conn) Taker) error {
	return listen(l, func(c net.Conn) error {
		timer := limitFirst(c)
		defer timer.Stop()
		return RunDirect(c, pin, func(s net.Conn) Taker {
			timer.Stop()
			return direct(s)
		})
	})
}

func listen(l net.Listener, run func(net.Conn) error) error {
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{}
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			// Out of descriptors, or a peer that has left already: try again.
			<-slots
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go func() {
			defer func() { <-slots }()
			// An error here is a connection's end; the next one is not affected.
			_ = run(c)
		}()
	}
}

// limitFirst closes a connection whose first RESET does not come in time.
func limitFirst(c net.Conn) *time.Timer {
	return time.AfterFunc(firstReset, func() { _ = c.Close() })
}

// runSocket is Run with a time limit for the first RESET.
func runSocket(c net.Conn, pin *Pin, serve func(net.Conn)) error {
	timer := limitFirst(c)
	defer timer.Stop()
	return Run(c, pin, func(s net.Conn) {
		timer.Stop()
		serve(s)
	})
}

// ListenUnix binds path with mode 0600, replacing a socket that nobody serves.
func ListenUnix(path string) (net.Listener, error) {
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			return nil, errors.New("another process serves " + path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// Connections is a net.Listener fed by Run: it lets http.Server serve sessions.
type Connections struct {
	ch   chan net.Conn
	once sync.Once
	done chan struct{}
}

// NewConnections makes an empty Connections.
func NewConnections() *Connections {
	return &Connections{ch: make(chan net.Conn), done: make(chan struct{})}
}

// Serve hands c to Accept.
func (l *Connections) Serve(c net.Conn) {
	select {
	case l.ch <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (l *Connections) Accept() (net.Conn, error) {
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Connections) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *Connections) Addr() net.Addr { return addr{} }
