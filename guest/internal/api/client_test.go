package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/kinds"
	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// agent is a server on a unix socket and a client of it.
type agent struct {
	t      *testing.T
	server *Server
	path   string
	token  channel.Token
	off    chan struct{}
	http   *http.Client
	close  func()
	mu     sync.Mutex
	conns  []net.Conn
}

// newAgent starts the agent in this process, with shorter times.
func newAgent(t *testing.T, change func(*Options)) *agent {
	t.Helper()
	a := newAgentAt(t, t.TempDir(), change)
	t.Cleanup(a.close)
	return a
}

func newAgentAt(t *testing.T, dir string, change func(*Options)) *agent {
	a := &agent{t: t, path: filepath.Join(dir, "agent.sock"), off: make(chan struct{})}
	_, _ = rand.Read(a.token[:])
	l, err := channel.ListenUnix(a.path)
	if err != nil {
		t.Fatal(err)
	}
	pin := &channel.Pin{}
	cfg := &netcfg.Config{Pin: pin}
	limits := stream.DefaultLimits(0)
	reaper := proc.NewReaper(false)
	o := Options{
		Build: "test", Mode: ModeProcess, BootID: "boot", Pin: pin, Config: cfg, Limits: limits,
		Host:     &kinds.Host{Host: run.Host{Reaper: reaper, Freezer: &proc.Freezer{}, Env: cfg.Env, Etc: "/etc"}, Fill: cfg.Fill},
		PowerOff: func(bool) { close(a.off) },
	}
	if change != nil {
		change(&o)
	}
	a.server = New(o)
	var running sync.WaitGroup
	running.Add(2)
	go func() { defer running.Done(); _ = a.server.Run() }()
	go func() { defer running.Done(); _ = channel.Listen(l, pin, a.server.ServeConn) }()
	a.http = a.client()
	a.close = func() {
		for _, s := range a.server.Streams().List() {
			_ = s.Signal(9, true)
		}
		a.http.CloseIdleConnections()
		_ = a.server.Close()
		_ = l.Close()
		running.Wait()
		reaper.Close()
	}
	return a
}

// remoteAgent talks to an agent that runs elsewhere, a VM's for example:
// VMSAN_AGENT_SOCKET names the socket, and one connection is used at a time.
func remoteAgent(t *testing.T) *agent {
	t.Helper()
	path := os.Getenv("VMSAN_AGENT_SOCKET")
	if path == "" {
		t.Skip("VMSAN_AGENT_SOCKET is not set")
	}
	a := &agent{t: t, path: path}
	copy(a.token[:], "vmsan-test-token")
	a.http = a.client()
	t.Cleanup(func() {
		a.http.CloseIdleConnections()
		a.breakAll()
	})
	return a
}

// connect makes a session: RESET and its echo.
func (a *agent) connect() (net.Conn, error) {
	c, err := net.Dial("unix", a.path)
	if err != nil {
		return nil, err
	}
	var nonce channel.Nonce
	_, _ = rand.Read(nonce[:])
	if _, err := c.Write(append(append([]byte(channel.Magic), a.token[:]...), nonce[:]...)); err != nil {
		return nil, err
	}
	// A virtio-serial port may still bring bytes of the session before.
	want := append(append([]byte(nil), a.token[:]...), nonce[:]...)
	var seen []byte
	for one := make([]byte, 1); !bytes.HasSuffix(seen, want); {
		if _, err := io.ReadFull(c, one); err != nil {
			return nil, fmt.Errorf("echo: %w", err)
		}
		seen = append(seen, one[0])
	}
	a.mu.Lock()
	a.conns = append(a.conns, c)
	a.mu.Unlock()
	return c, nil
}

// breakAll cuts every connection.
func (a *agent) breakAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		_ = c.Close()
	}
	a.conns = nil
	// The transport may not have noticed yet: take a new one.
	a.http.CloseIdleConnections()
	a.http = a.client()
}

func (a *agent) client() *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols:   p,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return a.connect() },
		HTTP2:       &http.HTTP2Config{MaxReceiveBufferPerStream: 4 << 20, MaxReceiveBufferPerConnection: 8 << 20, MaxReadFrameSize: 256 << 10},
	}}
}

// call makes a JSON request and gives status and body.
func (a *agent) call(method, path string, body any) (int, map[string]any) {
	a.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			a.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://agent"+path, r)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("vmsan-protocol", "1")
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var v map[string]any
	if len(b) > 0 {
		if err := json.Unmarshal(b, &v); err != nil {
			a.t.Fatalf("%s %s: %d %q", method, path, resp.StatusCode, b)
		}
	}
	return resp.StatusCode, v
}

// conn is one attachment, driven by hand.
type conn struct {
	t      *testing.T
	cancel context.CancelFunc
	w      *io.PipeWriter
	in     *wire.Reader
	body   io.Closer
	hello  wire.AttachedReply
	credit *credit
}

// open posts to path and sends the first frame.
func (a *agent) open(path string, t wire.Type, payload any) (*conn, error) {
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", "http://agent"+path, pr)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	c := &conn{t: a.t, cancel: cancel, w: pw, in: wire.NewReader(resp.Body), body: resp.Body, credit: newCredit()}
	if _, err := pw.Write(wire.AppendRaw(nil, t, wire.JSON(payload))); err != nil {
		c.drop()
		return nil, err
	}
	f, err := c.in.Next()
	if err != nil {
		c.drop()
		return nil, err
	}
	if f.Type == wire.Fail {
		var e wire.ErrorInfo
		_ = json.Unmarshal(f.Payload, &e)
		c.drop()
		return nil, &e
	}
	if f.Type != wire.Attached {
		c.drop()
		return nil, fmt.Errorf("first frame %s", f.Type)
	}
	err = json.Unmarshal(f.Payload, &c.hello)
	c.credit.grant(int(c.hello.Stdin))
	return c, err
}

// start opens a new stream; the spec gets an id.
func (a *agent) start(spec map[string]any) (*conn, error) {
	if spec["id"] == nil {
		spec["id"] = newID()
	}
	return a.open("/v1/streams", wire.Start, spec)
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (c *conn) send(f wire.Frame) error {
	_, err := c.w.Write(wire.Encode(f))
	return err
}

// drop cuts this attachment.
func (c *conn) drop() {
	c.credit.close()
	c.cancel()
	_ = c.w.Close()
	_ = c.body.Close()
}

// feed sends input from where the agent is, within its credit.
func (c *conn) feed(input []byte) {
	off := int(c.hello.Stdin)
	for off < len(input) {
		n := min(len(input)-off, 128<<10)
		c.credit.wait(off + n)
		if c.send(wire.Frame{Type: wire.Stdin, Offset: uint64(off), Data: input[off : off+n]}) != nil {
			return
		}
		off += n
	}
	_ = c.send(wire.Frame{Type: wire.StdinEOF, Offset: uint64(off)})
}

// credit is how far input may be sent.
type credit struct {
	mu     sync.Mutex
	cond   *sync.Cond
	to     int
	closed bool
}

func newCredit() *credit {
	c := &credit{to: 1 << 20}
	c.cond = sync.NewCond(&c.mu)
	return c
}

func (c *credit) wait(end int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.to < end && !c.closed {
		c.cond.Wait()
	}
}

func (c *credit) grant(acked int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = acked + 1<<20
	c.cond.Broadcast()
}

func (c *credit) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.cond.Broadcast()
}

// result is everything that a stream gave.
type result struct {
	out  [2]bytes.Buffer
	gaps int
	exit wire.Exit
}

// finish reads to EXIT, acknowledging all, and confirms.
func (c *conn) finish() (*result, error) {
	r := &result{}
	defer c.drop()
	for {
		f, err := c.in.Next()
		if err != nil {
			return r, err
		}
		switch f.Type {
		case wire.Stdout, wire.Stderr:
			i := int(f.Type - wire.Stdout)
			r.out[i].Write(f.Data)
			if err := c.send(wire.Frame{Type: wire.Ack, Stream: byte(i + 1), Offset: f.Offset + uint64(len(f.Data))}); err != nil {
				return r, err
			}
		case wire.Gap:
			r.gaps++
		case wire.StdinAck:
			c.credit.grant(int(f.Offset))
		case wire.Fail:
			var e wire.ErrorInfo
			_ = json.Unmarshal(f.Payload, &e)
			return r, &e
		case wire.ExitT:
			if err := json.Unmarshal(f.Payload, &r.exit); err != nil {
				return r, err
			}
			_ = c.send(wire.Frame{Type: wire.Ack})
			// The response ends once the agent has it.
			if _, err := c.in.Next(); err != io.EOF {
				return r, fmt.Errorf("behind EXIT: %v", err)
			}
			return r, nil
		}
	}
}

// run starts argv with input and gives the result.
func (a *agent) run(spec map[string]any, input []byte) *result {
	a.t.Helper()
	c, err := a.start(spec)
	if err != nil {
		a.t.Fatalf("start: %v", err)
	}
	if input != nil {
		go c.feed(input)
	}
	r, err := c.finish()
	if err != nil {
		a.t.Fatalf("finish: %v", err)
	}
	return r
}

func sh(script string) map[string]any {
	return map[string]any{"kind": "exec", "argv": []string{"sh", "-c", script}}
}

// eventually waits for something that other goroutines bring about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
