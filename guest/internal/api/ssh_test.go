package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"vmsan/guest/internal/wire"
)

// echoServer is what a copy of the tests' program is as the server of ssh: its order, then its input.
func echoServer() {
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// TestSSH: the program comes once, a connection has a server of its own with the order in front, a
// clone forgets whose host key it had, and a client that is gone for good takes its server along.
func TestSSH(t *testing.T) {
	a := newAgent(t, func(o *Options) { o.Limits.Broken = 200 * time.Millisecond })
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	key := bytes.Repeat([]byte{7}, 32)
	prepare := map[string]any{"hostKey": base64.StdEncoding.EncodeToString(key), "program": hex.EncodeToString(sum[:])}
	has := func() bool {
		t.Helper()
		status, reply := a.call("PUT", "/v1/ssh", prepare)
		if status != 200 {
			t.Fatalf("%d %v", status, reply)
		}
		return reply["program"] == true
	}
	spec := func() map[string]any {
		return map[string]any{"kind": "ssh", "authorizedKeys": []string{"ssh-ed25519 AAAA"}, "env": []string{"A=1"}, "workdir": "/srv"}
	}
	if has() {
		t.Fatal("the agent has a program that nobody sent")
	}
	if _, err := a.start(spec()); err == nil || !strings.Contains(err.Error(), wire.CodeSSH) {
		t.Fatalf("without a program: %v", err)
	}
	if r := a.run(map[string]any{"kind": "program"}, program); r.exit.ExitCode != 0 {
		t.Fatalf("%+v", r.exit)
	}
	if !has() {
		t.Fatal("the program did not arrive")
	}

	r := a.run(spec(), []byte("SSH-2.0-client"))
	if r.exit.ExitCode != 0 {
		t.Fatalf("%+v", r.exit)
	}
	line, rest, _ := bytes.Cut(r.out[0].Bytes(), []byte("\n"))
	var order wire.SSHOrder
	if err := json.Unmarshal(line, &order); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(order.HostKey, key) || order.Workdir != "/srv" || len(order.AuthorizedKeys) != 1 || order.Env[0] != "A=1" || string(rest) != "SSH-2.0-client" {
		t.Errorf("%s, then %q", line, rest)
	}

	left, err := a.start(spec())
	if err != nil {
		t.Fatal(err)
	}
	left.drop()
	eventually(t, "the server of a client that is gone has ended", func() bool {
		_, reply := a.call("GET", "/v1/streams", nil)
		for _, s := range reply["streams"].([]any) {
			if info := s.(map[string]any); info["kind"] == "ssh" && info["running"] == true {
				return false
			}
		}
		return true
	})

	if status, reply := a.call("PUT", "/v1/config", map[string]any{"restored": "clone"}); status != 200 {
		t.Fatalf("config: %d %v", status, reply)
	}
	if _, err := a.start(spec()); err == nil || !strings.Contains(err.Error(), wire.CodeSSH) {
		t.Errorf("a clone answers with the host key that it had: %v", err)
	}
	for name, bad := range map[string]map[string]any{
		"no key": {"program": prepare["program"]}, "no program": {"hostKey": prepare["hostKey"]}, "nothing": {},
	} {
		if status, _ := a.call("PUT", "/v1/ssh", bad); status != 400 {
			t.Errorf("%s: %d", name, status)
		}
	}
}
