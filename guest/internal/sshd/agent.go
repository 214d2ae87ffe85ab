package sshd

import (
	"net"
	"os"
	"path/filepath"
	"sync"

	"vmsan/guest/internal/files"
)

// forwardedAgent is the client's ssh agent, as a socket that only the connection's user reaches.
type forwardedAgent struct {
	mu     sync.Mutex
	socket string
}

// path gives the socket, made when it is first asked for.
func (a *forwardedAgent) path(s *Server) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.socket != "" {
		return a.socket, nil
	}
	var dir string
	err := files.As(s.user, false, func() (err error) {
		dir, err = os.MkdirTemp("/tmp", "ssh-")
		return err
	})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "agent")
	l, err := s.ownSocket(path)
	if err != nil {
		_ = os.Remove(dir) // it is empty
		return "", err
	}
	s.endings.add(func() {
		_ = l.Close()
		// Not with what it holds: it is the user's, who may have put something else in its place.
		_ = files.As(s.user, false, func() error { return os.Remove(dir) })
	})
	a.socket = path
	go s.offer(l, "auth-agent@openssh.com", func(net.Conn) []byte { return nil })
	return path, nil
}
