package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/agent"
)

func TestForwarding(t *testing.T) {
	g := newGuest(t)
	c := g.connect(t)
	echo := func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				// To the end of what the peer sends, then a word of its own.
				_, _ = io.Copy(conn, conn)
				_, _ = conn.Write([]byte("!"))
				_ = conn.Close()
			}()
		}
	}
	type half interface{ CloseWrite() error }
	say := func(conn net.Conn, what string) {
		t.Helper()
		defer conn.Close()
		if _, err := conn.Write([]byte(what)); err != nil {
			t.Error(err)
		}
		if err := conn.(half).CloseWrite(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != what+"!" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}

	inGuest, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inGuest.Close()
	go echo(inGuest)
	conn, err := c.Dial("tcp", inGuest.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	say(conn, "to a port")

	socket := filepath.Join(g.home, "s")
	inGuest2, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer inGuest2.Close()
	go echo(inGuest2)
	if conn, err = c.Dial("unix", socket); err != nil {
		t.Fatal(err)
	}
	say(conn, "to a socket")
	if _, err := c.Dial("unix", socket+"-no"); err == nil {
		t.Error("a socket that is not there was reached")
	}

	back, err := c.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	go echo(back)
	_, port, err := net.SplitHostPort(back.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if conn, err = net.Dial("tcp", "127.0.0.1:"+port); err != nil {
		t.Fatal(err)
	}
	say(conn, "from a port")
	if err := back.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		t.Error("it listens although that was cancelled")
	}

	backUnix, err := c.ListenUnix(filepath.Join(g.home, "r"))
	if err != nil {
		t.Fatal(err)
	}
	go echo(backUnix)
	if conn, err = net.Dial("unix", filepath.Join(g.home, "r")); err != nil {
		t.Fatal(err)
	}
	say(conn, "from a socket")
}

func TestAgentForwarding(t *testing.T) {
	g := newGuest(t)
	c := g.connect(t)
	keys := agent.NewKeyring()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: secret, Comment: "mine"}); err != nil {
		t.Fatal(err)
	}
	if err := agent.ForwardToAgent(c, keys); err != nil {
		t.Fatal(err)
	}
	s := newSession(t, c)
	if err := agent.RequestAgentForwarding(s); err != nil {
		t.Fatal(err)
	}
	path, err := s.Output("echo $SSH_AUTH_SOCK")
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimSpace(string(path))
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	listed, err := agent.NewClient(conn).List()
	if err != nil || len(listed) != 1 || listed[0].Comment != "mine" {
		t.Errorf("%v, %v", listed, err)
	}
	for path, mode := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}
	// Without being asked for, there is none.
	if got, err := newSession(t, g.connect(t)).Output("echo -$SSH_AUTH_SOCK-"); err != nil || string(got) != "--\n" {
		t.Errorf("%q, %v", got, err)
	}
}
