package api

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

func TestMain(m *testing.M) {
	if os.Args[0] == "vmsan-ssh" {
		echoServer()
	}
	proc.HideDescriptors()
	os.Exit(m.Run())
}

func TestHello(t *testing.T) {
	a := newAgent(t, nil)
	status, v := a.call("GET", "/v1/hello", nil)
	if status != 200 || v["protocol"] != float64(1) || v["build"] != "test" || v["configured"] != false || v["mode"] != "process" {
		t.Fatalf("%d %v", status, v)
	}
}

// TestExec has what bash over ssh does as the expectation.
func TestExec(t *testing.T) {
	a := newAgent(t, nil)
	big := make([]byte, 9<<20)
	rand.New(rand.NewSource(1)).Read(big)
	cases := []struct {
		name   string
		spec   map[string]any
		in     []byte
		out    string
		errOut string
		code   int
		signal string
	}{
		{name: "status 0", spec: sh("exit 0")},
		{name: "status 7", spec: sh("echo err >&2; exit 7"), errOut: "err\n", code: 7},
		{name: "status 255", spec: sh("exit 255"), code: 255},
		{name: "signal", spec: sh("kill -9 $$"), code: 137, signal: "SIGKILL"},
		{name: "no newline, NUL", spec: sh(`printf 'a\000b'`), out: "a\x00b"},
		{name: "no stdin", spec: sh("cat; echo end"), out: "end\n"},
		{name: "stdin", spec: with(sh("cat"), "stdin", true), in: []byte("hallo"), out: "hallo"},
		{name: "empty stdin", spec: with(sh("cat; echo end"), "stdin", true), in: []byte{}, out: "end\n"},
		{name: "stdin not read", spec: with(sh("exec true"), "stdin", true), in: big},
		{name: "stdin closed", spec: with(sh("exec 0<&-; sleep 0.05; echo ok"), "stdin", true), in: big, out: "ok\n"},
		{name: "orphan keeps output", spec: sh("(sleep 30; echo late)& echo done"), out: "done\n"},
		{name: "output after leader", spec: sh("(sleep 0.1; echo late)& echo done"), out: "done\nlate\n"},
		{name: "env", spec: with(sh("echo $A-$B"), "env", []string{"A=1", "B=2", "A=3"}), out: "3-2\n"},
		{name: "workdir", spec: with(sh("pwd"), "workdir", "/usr"), out: "/usr\n"},
		{name: "session leader", spec: sh(`test "$(ps -o sid= -p $$ | tr -d ' ')" = $$ && echo yes`), out: "yes\n"},
		{name: "umask", spec: sh("umask"), out: "0022\n"},
		{name: "no signals blocked or ignored", spec: sh(`grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\t\n'`), out: "SigBlk:0000000000000000SigIgn:0000000000000000"},
		{name: "descriptors", spec: sh(`ls /proc/self/fd | wc -l`), out: "4\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := a.run(c.spec, c.in)
			if r.out[0].String() != c.out || r.out[1].String() != c.errOut || r.exit.ExitCode != c.code || r.exit.Signal != c.signal {
				t.Errorf("stdout %q stderr %q exit %+v", r.out[0].String(), r.out[1].String(), r.exit)
			}
		})
	}
	eventually(t, "every confirmed stream is forgotten", func() bool { return a.server.Streams().Len() == 0 })
}

func with(spec map[string]any, name string, value any) map[string]any {
	spec[name] = value
	return spec
}

// TestBothDirectionsFull would stand still if input could block acknowledgements.
func TestBothDirectionsFull(t *testing.T) {
	a := newAgent(t, nil)
	in := make([]byte, 32<<20)
	rand.New(rand.NewSource(2)).Read(in)
	c, err := a.start(with(sh("cat"), "stdin", true))
	if err != nil {
		t.Fatal(err)
	}
	go c.feed(in)
	// Take no output until the input stands still, then everything.
	time.Sleep(300 * time.Millisecond)
	h := sha256.New()
	for {
		f, err := c.in.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch f.Type {
		case wire.StdinAck:
			c.credit.grant(int(f.Offset))
		case wire.Stdout:
			h.Write(f.Data)
			if err := c.send(wire.Frame{Type: wire.Ack, Stream: 1, Offset: f.Offset + uint64(len(f.Data))}); err != nil {
				t.Fatal(err)
			}
		case wire.ExitT:
			if want := sha256.Sum256(in); !bytes.Equal(h.Sum(nil), want[:]) {
				t.Fatal("the sums differ")
			}
			c.drop()
			return
		}
	}
}

func TestStartErrors(t *testing.T) {
	a := newAgent(t, nil)
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	cases := []struct {
		name string
		spec map[string]any
		code string
	}{
		{"missing", map[string]any{"argv": []string{"no-such-command"}}, wire.CodeNotFound},
		{"missing path", map[string]any{"argv": []string{"/no/such"}}, wire.CodeNotFound},
		{"directory", map[string]any{"argv": []string{"/"}}, wire.CodeNotExecutable},
		{"no x bit", map[string]any{"argv": []string{write("plain", "#!/bin/sh\n", 0o644)}}, wire.CodeNotExecutable},
		{"no interpreter", map[string]any{"argv": []string{write("odd", "#!/no/such\n", 0o755)}}, wire.CodeNotExecutable},
		{"binary rubbish", map[string]any{"argv": []string{write("bin", "\x00\x01\x02", 0o755)}}, wire.CodeNotExecutable},
		{"too long", map[string]any{"argv": []string{"echo", strings.Repeat("x", 3<<20)}}, wire.CodeArguments},
		{"workdir", with(sh("true"), "workdir", "/no/such"), wire.CodeWorkdir},
		{"user", with(sh("true"), "user", "nobody-here"), wire.CodeUser},
		{"id", with(sh("true"), "id", "../x"), wire.CodeRequest},
		{"kind", map[string]any{"kind": "dance"}, wire.CodeRequest},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.start(c.spec)
			var e *wire.ErrorInfo
			if !errors.As(err, &e) || e.Code != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
		})
	}
	if n := a.server.Streams().Len(); n != 0 {
		t.Errorf("%d streams are kept", n)
	}
	r := a.run(map[string]any{"argv": []string{write("script", "echo no line", 0o755)}}, nil)
	if r.out[0].String() != "no line\n" {
		t.Errorf("a script without #!: %q", r.out[0].String())
	}
	r = a.run(map[string]any{"argv": append([]string{"sh", "-c", "echo $#"}, strings.Split(strings.Repeat("x ", 60000), " ")...)}, nil)
	if r.out[0].String() != "60000\n" {
		t.Errorf("many arguments: %q", r.out[0].String())
	}
}

func TestTimeoutKillsTheTree(t *testing.T) {
	a := newAgent(t, nil)
	pids := filepath.Join(t.TempDir(), "pids")
	script := fmt.Sprintf(`trap "" TERM; (trap "" TERM; echo $$ >>%[1]s; exec sleep 60)& setsid sh -c 'trap "" TERM; echo $$ >>%[1]s; sleep 61' & wait; sleep 62`, pids)
	spec := with(with(sh(script), "timeoutMs", 300), "graceMs", 200)
	r := a.run(spec, nil)
	if !r.exit.TimedOut || r.exit.ExitCode != 124 {
		t.Fatalf("%+v", r.exit)
	}
	for _, p := range strings.Fields(mustRead(t, pids)) {
		var n int
		_, _ = fmt.Sscan(p, &n)
		eventually(t, "process "+p+" is gone", func() bool {
			b, err := os.ReadFile("/proc/" + p + "/stat")
			return syscall.Kill(n, 0) != nil || err == nil && strings.Contains(string(b), ") Z")
		})
	}
}

func TestTTY(t *testing.T) {
	a := newAgent(t, nil)
	spec := with(with(sh(`tty >/dev/null && stty size; read x; echo "got $x"; echo $TERM`), "tty", map[string]any{"rows": 33, "cols": 101, "term": "xterm-256color"}), "stdin", true)
	c, err := a.start(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.send(wire.Frame{Type: wire.Stdin, Data: []byte("hi\r")}); err != nil {
		t.Fatal(err)
	}
	r, err := c.finish()
	if err != nil {
		t.Fatal(err)
	}
	out := strings.ReplaceAll(strings.Replace(r.out[0].String(), "hi\r\n", "", 1), "\r", "")
	if out != "33 101\ngot hi\nxterm-256color\n" {
		t.Fatalf("%q", r.out[0].String())
	}
	// End of input types ^D; a resize is seen; SIGNAL goes to the foreground group.
	if r := a.run(with(with(sh("cat"), "tty", map[string]any{"rows": 2, "cols": 9}), "stdin", true), []byte("x")); r.exit.ExitCode != 0 {
		t.Fatalf("%+v", r.exit)
	}
	c, err = a.start(with(with(sh(`trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done`), "tty", map[string]any{"rows": 2, "cols": 9}), "stdin", true))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := c.in.Next(); err != nil || !strings.Contains(string(f.Data), "ready") {
		t.Fatal(f, err)
	}
	if err := c.send(wire.Frame{Type: wire.Resize, Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	if r, err = c.finish(); err != nil || r.exit.ExitCode != 3 || !strings.Contains(r.out[0].String(), "40 120") {
		t.Fatalf("%v %+v %q", err, r.exit, r.out[0].String())
	}
}

func TestHundredCommands(t *testing.T) {
	a := newAgent(t, nil)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := a.start(sh(fmt.Sprintf("echo %d; exit %d", i, i)))
			if err != nil {
				t.Error(err)
				return
			}
			r, err := c.finish()
			if err != nil || r.exit.ExitCode != i || r.out[0].String() != fmt.Sprintf("%d\n", i) {
				t.Errorf("%d: %v %+v %q", i, err, r.exit, r.out[0].String())
			}
		}()
	}
	wg.Wait()
}
