package api

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestOrphan: in a guest that has become another one, commands go on as detached
// streams that are found like any other, and keep what nobody has fetched; what
// is done for a client (a connection, a listener) is ended.
func TestOrphan(t *testing.T) {
	a := newAgent(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	command, dial := newID(), newID()
	c, err := a.start(map[string]any{"id": command, "argv": []string{"sh", "-c", "echo before; read x; echo after"}, "stdin": true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.drop()
	d, err := a.start(map[string]any{"id": dial, "kind": "dial", "network": "tcp", "address": l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.drop()
	if status, reply := a.call("PUT", "/v1/config", map[string]any{"restored": "clone"}); status != 200 {
		t.Fatalf("config: %d %v", status, reply)
	}
	find := func(id string) map[string]any {
		_, reply := a.call("GET", "/v1/streams", nil)
		for _, s := range reply["streams"].([]any) {
			if info := s.(map[string]any); info["id"] == id {
				return info
			}
		}
		return nil
	}
	eventually(t, "the connection is ended", func() bool {
		info := find(dial)
		return info == nil || info["running"] == false
	})
	info := find(command)
	if info == nil || info["running"] != true || info["detach"] != true || info["attached"] != float64(0) {
		t.Fatalf("the command: %v", info)
	}
	if status, reply := a.call("PUT", "/v1/config", map[string]any{"restored": "nonsense"}); status != 400 {
		t.Fatalf("a reason that is none: %d %v", status, reply)
	}
}

// TestFreeze: while the work is frozen no command starts; those that were asked
// for start when it goes on.
func TestFreeze(t *testing.T) {
	a := newAgent(t, nil)
	if status, reply := a.call("POST", "/v1/freeze", map[string]any{"disk": false}); status != 200 {
		t.Fatalf("freeze: %d %v", status, reply)
	}
	done := make(chan string, 1)
	go func() {
		r := a.run(sh("echo went on"), nil)
		done <- r.out[0].String()
	}()
	select {
	case out := <-done:
		t.Fatalf("a command ran while all was frozen: %q", out)
	case <-time.After(300 * time.Millisecond):
	}
	if status, reply := a.call("POST", "/v1/thaw", map[string]any{}); status != 204 {
		t.Fatalf("thaw: %d %v", status, reply)
	}
	select {
	case out := <-done:
		if strings.TrimSpace(out) != "went on" {
			t.Fatalf("out: %q", out)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the command never started")
	}
}
