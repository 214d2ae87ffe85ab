package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"vmsan/guest/internal/wire"
)

// TestDisconnects cuts the connection at random places in mid-traffic: no byte
// is lost or doubled, no command dies, nothing leaks.
func TestDisconnects(t *testing.T) {
	a := newAgent(t, nil)
	fds := func() int { n, _ := os.ReadDir("/proc/self/fd"); return len(n) }
	_ = a.run(sh("true"), nil)
	before, goroutines := fds(), runtime.NumGoroutine()
	rnd := rand.New(rand.NewSource(3))
	in := make([]byte, 3<<20)
	rnd.Read(in)
	cuts := 0
	for cuts < 100 {
		id := newID()
		spec := map[string]any{"id": id, "argv": []string{"sh", "-c", "tee /dev/stderr"}, "stdin": true}
		var out, errOut bytes.Buffer
		for done := false; !done; {
			c, err := a.start(spec)
			if err != nil {
				t.Fatal(err)
			}
			// START again attaches where output was acknowledged last.
			out.Truncate(int(c.hello.Stdout))
			errOut.Truncate(int(c.hello.Stderr))
			go c.feed(in)
			left := 1 + rnd.Intn(120)
			for ; left > 0; left-- {
				f, err := c.in.Next()
				if err != nil {
					t.Fatalf("the stream broke by itself: %v", err)
				}
				switch f.Type {
				case wire.StdinAck:
					c.credit.grant(int(f.Offset))
				case wire.Stdout, wire.Stderr:
					b := &out
					if f.Type == wire.Stderr {
						b = &errOut
					}
					if int(f.Offset) != b.Len() {
						t.Fatalf("offset %d after %d bytes", f.Offset, b.Len())
					}
					b.Write(f.Data)
					if rnd.Intn(3) == 0 {
						// The cut may come between a write and its arrival.
						_ = c.send(wire.Frame{Type: wire.Ack, Stream: byte(f.Type-wire.Stdout) + 1, Offset: uint64(b.Len())})
					}
				case wire.Gap, wire.Fail:
					t.Fatalf("%s %s", f.Type, f.Payload)
				case wire.ExitT:
					_ = c.send(wire.Frame{Type: wire.Ack})
					_, _ = c.in.Next()
					done = true
					left = 0
				}
			}
			if !done {
				cuts++
				a.breakAll()
			}
			c.drop()
		}
		if !bytes.Equal(out.Bytes(), in) || !bytes.Equal(errOut.Bytes(), in) {
			t.Fatalf("%d and %d bytes differ from %d", out.Len(), errOut.Len(), len(in))
		}
	}
	eventually(t, "streams are forgotten", func() bool { return a.server.Streams().Len() == 0 })
	a.breakAll()
	a.http.CloseIdleConnections()
	eventually(t, "descriptors and goroutines are back", func() bool { return fds() <= before && runtime.NumGoroutine() <= goroutines })
}

// TestDetach: a detached stream goes on, drops its oldest output and says so.
func TestDetach(t *testing.T) {
	a := newAgent(t, nil)
	id := newID()
	c, err := a.start(with(with(with(sh("head -c 3000000 /dev/zero | tr '\\0' x; echo end"), "id", id), "detach", true), "ringBytes", 100000))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.send(wire.Frame{Type: wire.Detach}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := c.in.Next(); err != nil {
			break
		}
	}
	c.drop()
	status, v := a.call("GET", "/v1/streams/"+id+"/wait", nil)
	if status != 200 || v["running"] != false {
		t.Fatal(status, v)
	}
	c, err = a.open("/v1/streams/"+id, wire.Attach, map[string]any{"stdout": "0", "stderr": "0", "observe": true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.finish()
	if err != nil || r.gaps != 1 || r.out[0].Len() != 100000 || !strings.HasSuffix(r.out[0].String(), "xend\n") {
		t.Fatal(err, r.gaps, r.out[0].Len())
	}
	c, err = a.open("/v1/streams/"+id, wire.Attach, map[string]any{"observe": true, "tail": 6})
	if err != nil {
		t.Fatal(err)
	}
	if r, err = c.finish(); err != nil || r.gaps != 0 || r.out[0].String() != "xxend\n" {
		t.Fatal(err, r.gaps, r.out[0].String())
	}
	// ACK 0 does not forget it, DELETE does.
	if status, _ := a.call("DELETE", "/v1/streams/"+id, nil); status != 204 {
		t.Fatal(status)
	}
	if status, v := a.call("GET", "/v1/streams/"+id, nil); status != 404 || v["error"].(map[string]any)["code"] != wire.CodeStreamNotFound {
		t.Fatal(status, v)
	}
}

func TestBrokenBecomesLoose(t *testing.T) {
	a := newAgent(t, func(o *Options) { o.Limits.Broken = 50 * time.Millisecond; o.Limits.AttachedRing = 64 << 10 })
	id := newID()
	c, err := a.start(with(sh("head -c 1000000 /dev/zero; exit 5"), "id", id))
	if err != nil {
		t.Fatal(err)
	}
	a.breakAll()
	c.drop()
	if _, v := a.call("GET", "/v1/streams/"+id+"/wait", nil); v["exit"].(map[string]any)["exitCode"] != float64(5) {
		t.Fatal(v)
	}
	c, err = a.open("/v1/streams/"+id, wire.Attach, map[string]any{"stdout": "0", "stderr": "0"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.finish(); err != nil || r.gaps != 1 || r.out[0].Len() != 64<<10 {
		t.Fatal(err, r.gaps, r.out[0].Len())
	}
}

func TestTakeover(t *testing.T) {
	a := newAgent(t, nil)
	id := newID()
	first, err := a.start(with(with(sh("cat"), "stdin", true), "id", id))
	if err != nil {
		t.Fatal(err)
	}
	second, err := a.open("/v1/streams/"+id, wire.Attach, map[string]any{"stdout": "0", "stderr": "0"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = first.finish()
	var e *wire.ErrorInfo
	if !errors.As(err, &e) || e.Code != wire.CodeTakenOver {
		t.Fatal(err)
	}
	go second.feed([]byte("to the second"))
	if r, err := second.finish(); err != nil || r.out[0].String() != "to the second" {
		t.Fatal(err, r.out[0].String())
	}
}

func TestSeveralOnATerminal(t *testing.T) {
	a := newAgent(t, nil)
	id := newID()
	first, err := a.start(with(with(with(sh("stty -echo; echo go; read x; read y; echo $x$y"), "tty", map[string]any{"rows": 5, "cols": 50}), "id", id), "client", "00000000000000aa"))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := first.in.Next(); err != nil || !strings.Contains(string(f.Data), "go") {
		t.Fatal(f, err)
	}
	// Consumed output is kept for those who come later.
	_ = first.send(wire.Frame{Type: wire.Ack, Stream: 1, Offset: 4})
	second, err := a.open("/v1/streams/"+id, wire.Attach, map[string]any{"stdout": "0", "stderr": "0", "client": "00000000000000bb"})
	if err != nil || second.hello.Stdin != 0 {
		t.Fatal(err, second)
	}
	if err := first.send(wire.Frame{Type: wire.Stdin, Data: []byte("1\r")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first input is accepted", func() bool {
		s, err := a.server.Streams().Get(id)
		return err == nil && s.Accepted() == 2
	})
	// Each client's input has its own offsets, over its reconnections too.
	if err := second.send(wire.Frame{Type: wire.Stdin, Data: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second input is accepted", func() bool {
		s, err := a.server.Streams().Get(id)
		return err == nil && s.Accepted() == 3
	})
	second.drop()
	second, err = a.open("/v1/streams/"+id, wire.Attach, map[string]any{"stdout": "0", "stderr": "0", "client": "00000000000000bb"})
	if err != nil || second.hello.Stdin != 1 {
		t.Fatal(err, second)
	}
	if err := second.send(wire.Frame{Type: wire.Stdin, Offset: 1, Data: []byte("\r")}); err != nil {
		t.Fatal(err)
	}
	for i, c := range []*conn{first, second} {
		r, err := c.finish()
		if err != nil || !strings.Contains(r.out[0].String(), "12") || i == 1 && !strings.HasPrefix(r.out[0].String(), "go") {
			t.Fatal(i, err, r.out[0].String())
		}
	}
}

func TestOffsets(t *testing.T) {
	a := newAgent(t, nil)
	c, err := a.start(with(sh("cat"), "stdin", true))
	if err != nil {
		t.Fatal(err)
	}
	// Repeats are dropped, also those that overlap.
	for _, f := range []wire.Frame{{Offset: 0, Data: []byte("abc")}, {Offset: 0, Data: []byte("abc")}, {Offset: 1, Data: []byte("bcde")}} {
		f.Type = wire.Stdin
		if err := c.send(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.send(wire.Frame{Type: wire.StdinEOF, Offset: 5}); err != nil {
		t.Fatal(err)
	}
	if r, err := c.finish(); err != nil || r.out[0].String() != "abcde" {
		t.Fatal(err, r.out[0].String())
	}
	c, err = a.start(with(sh("cat"), "stdin", true))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.send(wire.Frame{Type: wire.Stdin, Offset: 5, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	_, err = c.finish()
	var e *wire.ErrorInfo
	if !errors.As(err, &e) || e.Code != wire.CodeOffset {
		t.Fatal(err)
	}
}

func TestSignals(t *testing.T) {
	a := newAgent(t, nil)
	id := newID()
	c, err := a.start(with(sh("trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done"), "id", id))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.Next(); err != nil {
		t.Fatal(err)
	}
	if status, v := a.call("POST", "/v1/streams/"+id+"/signal", map[string]any{"signal": "SIGUSR1"}); status != 204 {
		t.Fatal(status, v)
	}
	if f, err := c.in.Next(); err != nil || string(f.Data) != "usr1\n" {
		t.Fatal(f, err)
	}
	if err := c.send(wire.Frame{Type: wire.Signal, Signal: 15, Tree: true}); err != nil {
		t.Fatal(err)
	}
	r, err := c.finish()
	if err != nil || r.exit.ExitCode != 143 || r.exit.Signal != "SIGTERM" {
		t.Fatal(err, r.exit)
	}
	if status, _ := a.call("POST", "/v1/streams/"+id+"/signal", map[string]any{"signal": "TERM"}); status != 404 {
		t.Fatal(status)
	}
}

func TestArchivesOverTheChannel(t *testing.T) {
	a := newAgent(t, nil)
	dir := t.TempDir()
	big := make([]byte, 5<<20)
	rand.New(rand.NewSource(5)).Read(big)
	if err := os.Mkdir(dir+"/from", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/from/big", big, 0o640); err != nil {
		t.Fatal(err)
	}
	r := a.run(map[string]any{"kind": "tar", "path": dir + "/from"}, nil)
	if r.exit.ExitCode != 0 {
		t.Fatal(r.exit)
	}
	up := a.run(map[string]any{"kind": "untar", "path": dir + "/to", "parents": true}, r.out[0].Bytes())
	if up.exit.ExitCode != 0 {
		t.Fatalf("%+v", up.exit)
	}
	if b := mustRead(t, dir+"/to/from/big"); b != string(big) {
		t.Fatal("differs")
	}
	if r := a.run(map[string]any{"kind": "read", "path": dir + "/to/from/big", "offset": 10, "length": 100}, nil); !bytes.Equal(r.out[0].Bytes(), big[10:110]) {
		t.Fatal("read differs")
	}
	if r := a.run(map[string]any{"kind": "write", "path": dir + "/w", "mode": 0o600}, big); r.exit.ExitCode != 0 || mustRead(t, dir+"/w") != string(big) {
		t.Fatal("write", r.exit)
	}
	bad := a.run(map[string]any{"kind": "untar", "path": dir + "/missing"}, r.out[0].Bytes())
	if bad.exit.ExitCode != 1 || bad.exit.Error == nil || bad.exit.Error.Code != wire.CodeFile {
		t.Fatalf("%+v", bad.exit)
	}
	// Without the end of the input nothing appears.
	c, err := a.start(map[string]any{"kind": "write", "path": dir + "/half"})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.send(wire.Frame{Type: wire.Stdin, Data: []byte("half")})
	_ = c.send(wire.Frame{Type: wire.Signal, Signal: 15})
	if r, err := c.finish(); err != nil || r.exit.ExitCode != 143 {
		t.Fatal(err, r.exit)
	}
	if left, _ := filepath.Glob(dir + "/*half*"); len(left) != 0 {
		t.Fatal(left)
	}
	status, v := a.call("POST", "/v1/fs/stat", map[string]any{"path": dir + "/w"})
	if status != 200 || v["mode"] != float64(0o600) || v["size"] != fmt.Sprint(len(big)) {
		t.Fatal(status, v)
	}
	if status, v := a.call("POST", "/v1/fs/stat", map[string]any{"path": dir + "/nope"}); status != 404 || v["error"].(map[string]any)["code"] != wire.CodeFile {
		t.Fatal(status, v)
	}
	if status, _ := a.call("POST", "/v1/fs/mkdir", map[string]any{"path": dir + "/to"}); status != 409 {
		t.Fatal(status)
	}
	if status, v := a.call("POST", "/v1/fs/change", map[string]any{"path": dir + "/w", "uid": os.Getuid(), "mode": 0o640}); status != 204 {
		t.Fatal(status, v)
	}
	if _, v := a.call("POST", "/v1/fs/stat", map[string]any{"path": dir + "/w"}); v["mode"] != float64(0o640) || v["uid"] != float64(os.Getuid()) {
		t.Fatal(v)
	}
	read := func(body map[string]any) (int, any) {
		status, v := a.call("POST", "/v1/fs/read", body)
		return status, v["content"]
	}
	if err := os.WriteFile(dir+"/small", []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, content := read(map[string]any{"path": dir + "/small", "limit": 3}); status != 200 || content != "YWJj" {
		t.Fatal(status, content)
	}
	for _, bad := range []map[string]any{{"path": dir + "/small", "limit": 2}, {"path": dir + "/small", "limit": 1 << 30}, {"path": dir, "limit": 9}, {"path": dir + "/nope", "limit": 9}} {
		if status, _ := read(bad); status < 400 {
			t.Fatal(bad, status)
		}
	}
	if status, v := a.call("POST", "/v1/fs/sync", map[string]any{"path": dir}); status != 204 {
		t.Fatal(status, v)
	}
	if status, v := a.call("POST", "/v1/fs/sync", map[string]any{"path": dir + "/nope"}); status != 404 {
		t.Fatal(status, v)
	}
	// A symlink is never followed: it has no mode of its own.
	if err := os.Symlink(dir+"/w", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []map[string]any{{"path": dir + "/link", "mode": 0o777}, {"path": dir + "/w", "mode": 0o10000}, {"path": dir + "/nope", "mode": 0}, {"path": "w"}} {
		if status, v := a.call("POST", "/v1/fs/change", bad); status < 400 {
			t.Fatal(bad, status, v)
		}
	}
	if _, v := a.call("POST", "/v1/fs/stat", map[string]any{"path": dir + "/w"}); v["mode"] != float64(0o640) {
		t.Fatal(v)
	}
}

func TestConnections(t *testing.T) {
	a := newAgent(t, nil)
	l, err := a.start(map[string]any{"kind": "listen", "network": "tcp", "address": "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	lines := func(c *conn) map[string]string {
		t.Helper()
		f, err := c.in.Next()
		v := map[string]string{}
		if err != nil || f.Type != wire.Stdout || json.Unmarshal(f.Data, &v) != nil {
			t.Fatal(f, err)
		}
		return v
	}
	address := lines(l)["address"]
	dial, err := a.start(map[string]any{"kind": "dial", "network": "tcp", "address": address})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := a.open("/v1/streams/"+lines(l)["id"], wire.Attach, map[string]any{"stdout": "0", "stderr": "0"})
	if err != nil {
		t.Fatal(err)
	}
	up, down := make([]byte, 2<<20), make([]byte, 3<<20)
	rand.New(rand.NewSource(6)).Read(up)
	rand.New(rand.NewSource(7)).Read(down)
	go dial.feed(up)
	go accepted.feed(down)
	got := make(chan *result, 2)
	for _, c := range []*conn{dial, accepted} {
		go func() {
			r, err := c.finish()
			if err != nil {
				t.Error(err)
			}
			got <- r
		}()
	}
	sums := map[[32]byte]bool{}
	for range 2 {
		sums[sha256.Sum256((<-got).out[0].Bytes())] = true
	}
	if !sums[sha256.Sum256(up)] || !sums[sha256.Sum256(down)] {
		t.Fatal("the data differ")
	}
	_ = l.send(wire.Frame{Type: wire.Signal, Signal: 15})
	if r, err := l.finish(); err != nil || r.exit.Signal != "SIGTERM" {
		t.Fatal(err, r.exit)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Fatal("somebody still listens")
	}
	_, err = a.start(map[string]any{"kind": "dial", "network": "tcp", "address": address})
	var e *wire.ErrorInfo
	if !errors.As(err, &e) || e.Code != wire.CodeDial {
		t.Fatal(err)
	}
}

func TestConfigAndShutdown(t *testing.T) {
	a := newAgent(t, nil)
	status, v := a.call("PUT", "/v1/config", map[string]any{"hostname": "other", "env": []string{"FROM=config", "HOME=/nowhere"}})
	if status != 200 || fmt.Sprint(v["skipped"]) != "[hostname hostnameFile hosts]" {
		t.Fatal(status, v)
	}
	if r := a.run(with(sh("echo $FROM $HOME"), "env", []string{"HOME=/mine"}), nil); r.out[0].String() != "config /mine\n" {
		t.Fatal(r.out[0].String())
	}
	for _, bad := range []map[string]any{
		{"hostname": "a\nb"}, {"token": "xyz"}, {"env": []string{"=x"}}, {"time": map[string]any{"unixNs": "soon"}},
		{"network": map[string]any{"dns": []string{"1.1.1.1\nnameserver 6.6.6.6"}}},
		{"network": map[string]any{"hosts": []any{map[string]any{"address": "1.1.1.1", "names": []string{"a b"}}}}},
	} {
		if status, v := a.call("PUT", "/v1/config", bad); status != 400 {
			t.Error(bad, status, v)
		}
	}
	c, err := a.start(sh("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.in.Next(); err != nil {
		t.Fatal(err)
	}
	if status, _ := a.call("POST", "/v1/shutdown", map[string]any{"graceMs": 5000}); status != 202 {
		t.Fatal(status)
	}
	if r, err := c.finish(); err != nil || !strings.Contains(r.out[0].String(), "bye") {
		t.Fatal(err, r.out[0].String())
	}
	<-a.off
	if _, err := a.start(sh("true")); err == nil {
		t.Fatal("started during shutdown")
	}
}

func TestHelloRefusesOtherProtocols(t *testing.T) {
	a := newAgent(t, nil)
	resp, err := a.http.Get("http://agent/v1/hello")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 426 || !strings.Contains(string(b), "agent 1") {
		t.Fatal(resp.StatusCode, string(b))
	}
}
