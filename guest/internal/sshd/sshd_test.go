package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/wire"
)

// The tests' program is also the server of sftp that a server starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sftp" {
		if SFTP() != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// guest is an etc directory and what the agent would order.
type guest struct {
	etc     string
	home    string
	signer  ssh.Signer
	hostKey ed25519.PublicKey
	order   wire.SSHOrder
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{etc: t.TempDir(), home: t.TempDir()}
	line := "me:x:" + strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid()) + "::" + g.home + ":/bin/sh\n"
	if err := os.WriteFile(filepath.Join(g.etc, "passwd"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	host, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g.hostKey = host
	g.signer = newSigner(t)
	g.order = wire.SSHOrder{
		HostKey: secret.Seed(), Env: []string{"FROM_VM=yes"},
		AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(g.signer.PublicKey()))) + " a comment"},
	}
	return g
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// pipes are the client's ends of the server's input and output.
type pipes struct {
	io.Reader
	io.Writer
	net.Conn
	close func()
}

func (p pipes) Read(b []byte) (int, error)  { return p.Reader.Read(b) }
func (p pipes) Write(b []byte) (int, error) { return p.Writer.Write(b) }
func (p pipes) Close() error                { p.close(); return nil }
func (p pipes) RemoteAddr() net.Addr        { return &net.UnixAddr{} }
func (p pipes) LocalAddr() net.Addr         { return &net.UnixAddr{} }

// serve starts a server; done gives what Serve gave.
func (g *guest) serve(t *testing.T, stop <-chan struct{}) (net.Conn, <-chan error) {
	t.Helper()
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(append(wire.JSON(g.order), '\n')); err != nil {
		t.Fatal(err)
	}
	reaper := proc.NewReaper(false)
	host := &run.Host{Reaper: reaper, Freezer: &proc.Freezer{}, Etc: g.etc}
	done := make(chan error, 1)
	go func() {
		done <- Serve(theirIn, theirOut, host, "/proc/self/exe", stop)
		_, _ = theirIn.Close(), theirOut.Close()
	}()
	t.Cleanup(func() { _, _ = in.Close(), out.Close(); reaper.Close() })
	return pipes{Reader: out, Writer: in, close: func() { _, _ = in.Close(), out.Close() }}, done
}

func (g *guest) clientConfig(user string, signer ssh.Signer, banner *string) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			want, err := ssh.NewPublicKey(g.hostKey)
			if err != nil || !bytes.Equal(want.Marshal(), key.Marshal()) {
				return errors.Join(errors.New("another host key"), err)
			}
			return nil
		},
		BannerCallback: func(message string) error {
			if banner != nil {
				*banner = message
			}
			return nil
		},
	}
}

// connect logs in as me.
func (g *guest) connect(t *testing.T) *ssh.Client {
	t.Helper()
	c, _ := g.serve(t, make(chan struct{}))
	conn, channels, requests, err := ssh.NewClientConn(c, "vm", g.clientConfig("me", g.signer, nil))
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func newSession(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCommands(t *testing.T) {
	g := newGuest(t)
	c := g.connect(t)
	s := newSession(t, c)
	if err := s.Setenv("FROM_CLIENT", "also"); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader("typed"), &stdout, &stderr
	err := s.Run(`cat; echo " $FROM_VM $FROM_CLIENT $USER $PWD $SSH_CONNECTION"; echo complaint >&2; exit 42`)
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 42 {
		t.Fatalf("status: %v", err)
	}
	if want := "typed yes also me " + g.home + " UNKNOWN 65535 UNKNOWN 65535\n"; stdout.String() != want {
		t.Errorf("stdout %q, want %q", &stdout, want)
	}
	if stderr.String() != "complaint\n" {
		t.Errorf("stderr %q", &stderr)
	}

	if err := newSession(t, c).Run("kill -USR1 $$"); !errors.As(err, &exit) || exit.Signal() != "USR1" {
		t.Errorf("a signal: %v", err)
	}

	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	echo := newSession(t, c)
	echo.Stdin = bytes.NewReader(big)
	if got, err := echo.Output("cat"); err != nil || !bytes.Equal(got, big) {
		t.Errorf("4 MiB there and back: %d bytes, %v", len(got), err)
	}

	// What a command leaves behind does not hold up its end.
	if got, err := newSession(t, c).Output("sleep 60 & echo ended"); err != nil || string(got) != "ended\n" {
		t.Errorf("with something left behind: %q, %v", got, err)
	}
}

// recorder notes what a session does with its channel.
type recorder struct {
	ssh.Channel
	said []string
}

func (r *recorder) CloseWrite() error { r.said = append(r.said, "end"); return nil }
func (r *recorder) Close() error      { r.said = append(r.said, "close"); return nil }
func (r *recorder) SendRequest(name string, _ bool, _ []byte) (bool, error) {
	r.said = append(r.said, name)
	return true, nil
}

func TestStatusComesBeforeTheEndOfTheOutput(t *testing.T) {
	r := &recorder{}
	(&session{ch: r}).exit("exit-status", nil)
	if got := strings.Join(r.said, " "); got != "exit-status end close" {
		t.Error(got)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	s := newSession(t, newGuest(t).connect(t))
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo up; exec sleep 60"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("its end: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	s := newSession(t, newGuest(t).connect(t))
	modes := ssh.TerminalModes{ssh.ECHO: 0, ssh.VERASE: 8, ssh.IXANY: 1}
	if err := s.RequestPty("vt220", 31, 97, modes); err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	s.Stdout = &out
	if err := s.Start(`trap 'stty size; exit 5' WINCH; stty size; stty -a; echo "$TERM"; test "$(tty)" = "$SSH_TTY" && echo same; while :; do sleep 0.05; done`); err != nil {
		t.Fatal(err)
	}
	out.await(t, "same")
	for _, want := range []string{"31 97", "-echo ", "erase = ^H", " ixany", "vt220"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if err := s.WindowChange(40, 120); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 5 {
		t.Errorf("its end: %v", err)
	}
	if !strings.Contains(out.String(), "40 120") {
		t.Errorf("no new size in %s", out.String())
	}
	_ = in.Close()
}

func TestEndOfInputIsTypedOnATerminal(t *testing.T) {
	s := newSession(t, newGuest(t).connect(t))
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("one line\n")
	if got, err := s.Output("cat; echo over"); err != nil || string(got) != "one line\r\nover\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTerminalEndsWithItsSession(t *testing.T) {
	g := newGuest(t)
	s := newSession(t, g.connect(t))
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(g.home, "hung-up")
	var out lockedBuffer
	s.Stdout = &out
	if err := s.Start(`trap 'echo > ` + mark + `; exit' HUP; echo ready; while :; do sleep 0.05; done`); err != nil {
		t.Fatal(err)
	}
	out.await(t, "ready")
	_ = s.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(mark); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command on the terminal got no HUP")
		}
	}
}

func TestWhoMayLogIn(t *testing.T) {
	g := newGuest(t)
	for name, try := range map[string]struct {
		user   string
		signer ssh.Signer
		said   string
	}{
		"another key":     {"me", newSigner(t), ""},
		"an unknown user": {"nobody-here", g.signer, "/etc/passwd does not list it"},
	} {
		c, done := g.serve(t, make(chan struct{}))
		var banner string
		if _, _, _, err := ssh.NewClientConn(c, "vm", g.clientConfig(try.user, try.signer, &banner)); err == nil {
			t.Errorf("%s: logged in", name)
		}
		if !strings.Contains(banner, try.said) {
			t.Errorf("%s: said %q", name, banner)
		}
		_ = c.Close()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	config := g.clientConfig("me", g.signer, nil)
	config.Auth = []ssh.AuthMethod{ssh.Password("me")}
	c, _ := g.serve(t, make(chan struct{}))
	if _, _, _, err := ssh.NewClientConn(c, "vm", config); err == nil {
		t.Error("logged in with a password")
	}
}

func TestFiles(t *testing.T) {
	g := newGuest(t)
	conn := g.connect(t)
	client, err := sftp.NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if wd, err := client.Getwd(); err != nil || wd != g.home {
		t.Errorf("it begins in %q, %v", wd, err)
	}
	f, err := client.Create("new")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("vmsan"), 100_000)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(g.home, "new")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
	// pkg/sftp's client names them in OpenSSH's order; others do where the server is called so.
	if err := client.Symlink("new", "link"); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(g.home, "link")); err != nil || to != "new" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if v := string(conn.ServerVersion()); !strings.HasPrefix(v, "SSH-2.0-OpenSSH_") {
		t.Errorf("the server is called %q", v)
	}
}

func TestStopEndsTheConnection(t *testing.T) {
	g := newGuest(t)
	stop := make(chan struct{})
	c, done := g.serve(t, stop)
	conn, channels, requests, err := ssh.NewClientConn(c, "vm", g.clientConfig("me", g.signer, nil))
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	s := newSession(t, client)
	if err := agent.RequestAgentForwarding(s); err != nil {
		t.Fatal(err)
	}
	path, err := s.Output("echo $SSH_AUTH_SOCK")
	if err != nil {
		t.Fatal(err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(strings.TrimSpace(string(path)))); !os.IsNotExist(err) {
		t.Errorf("the agent's socket is left: %v", err)
	}
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		`a b`:                 {"a", "b"},
		"  /bin/x \t-y  ":     {"/bin/x", "-y"},
		`'a b' "c d" e\ f ''`: {"a b", "c d", "e f", ""},
		`"a\"b\c" 'it'\''s'`:  {`a"b\c`, "it's"},
		`'$x;|' "a;b" x=1`:    {"$x;|", "a;b", "x=1"},
	} {
		got, err := splitWords(line)
		if err != nil || strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Errorf("%s: %q, %v", line, got, err)
		}
	}
	for _, line := range []string{"", " ", "a | b", "a; b", "$x", `"$x"`, "`x`", "a > b", "a *", "'a", `"a`, `a\`, "a\nb", "~/x"} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("%q was split: %q", line, got)
		}
	}
}

func TestModesOfAnotherShape(t *testing.T) {
	for _, modes := range []string{"", "\x00", "\x01", "\x35\x00\x00\x00", "\xa0\x00\x00\x00\x01\x35\x00\x00\x00\x00"} {
		before := unix.Termios{Lflag: unix.ECHO}
		apply(&before, modes)
		if before.Lflag != unix.ECHO {
			t.Errorf("%q changed something", modes)
		}
	}
}

func TestHostileOrders(t *testing.T) {
	for name, first := range map[string]string{
		"nothing": "", "no line": "{}", "no JSON": "x\n", "no key": "{}\n", "a short key": `{"hostKey":"AAAA"}` + "\n",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.WriteString(first)
		_ = w.Close()
		host := &run.Host{Reaper: proc.NewReaper(false), Freezer: &proc.Freezer{}, Etc: "/etc"}
		if Serve(r, os.Stdout, host, "", nil) == nil {
			t.Errorf("%s: served", name)
		}
		host.Reaper.Close()
		_ = r.Close()
	}
}

// lockedBuffer is written and read at once.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *lockedBuffer) await(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.String(), what); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q", what, b.String())
		}
	}
}
