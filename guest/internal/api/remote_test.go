package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRemote is for an agent in a VM: VMSAN_AGENT_SOCKET=ctl.sock go test -run Remote -v ./internal/api
func TestRemote(t *testing.T) {
	a := remoteAgent(t)
	status, v := a.call("GET", "/v1/hello", nil)
	t.Log(status, v)
	seed := make([]byte, 64)
	rand.Read(seed)
	begin := time.Now()
	status, v = a.call("PUT", "/v1/config", map[string]any{
		"hostname": "vm-test", "time": map[string]any{"unixNs": strconv.FormatInt(time.Now().UnixNano(), 10)},
		"seed": base64.StdEncoding.EncodeToString(seed), "env": []string{"FROM=config"}, "machineId": "00112233445566778899aabbccddeeff",
		"network": map[string]any{
			"interfaces": []any{map[string]any{"mac": "52:54:00:12:34:56", "addresses": []string{"10.0.2.15/24", "fd00::15/64"}, "gateway4": "10.0.2.2", "gateway6": "fd00::2", "mtu": 1400}},
			"dns":        []string{"10.0.2.3"}, "search": []string{"example.test"}, "hosts": []any{map[string]any{"address": "10.9.9.9", "names": []string{"nine"}}},
		},
	})
	t.Log(time.Since(begin), status, v)
	if status != 200 || v["warnings"] != nil || v["skipped"] != nil {
		t.Fatal("config")
	}
	r := a.run(sh("echo $FROM; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname /etc/machine-id; ls -la /dev /tmp / /dev/; mount; date; ip addr; ip route; ip -6 route; ps; df; cat /proc/self/cgroup; ulimit -n; ulimit -Hn"), nil)
	t.Logf("%s%s%+v", r.out[0].String(), r.out[1].String(), r.exit)
	times := []time.Duration{}
	for range 20 {
		begin := time.Now()
		if r := a.run(map[string]any{"argv": []string{"true"}}, nil); r.exit.ExitCode != 0 {
			t.Fatal(r.exit)
		}
		times = append(times, time.Since(begin))
	}
	t.Log("exec true", times)
	in := make([]byte, 32<<20)
	rand.Read(in)
	begin = time.Now()
	r = a.run(map[string]any{"argv": []string{"sha256sum"}, "stdin": true}, in)
	if want := fmt.Sprintf("%x", sha256.Sum256(in)); !strings.HasPrefix(r.out[0].String(), want) {
		t.Fatal("up")
	}
	t.Log("up", 32/time.Since(begin).Seconds(), "MB/s with sha256sum")
	begin = time.Now()
	r = a.run(map[string]any{"argv": []string{"sh", "-c", "cat >/dev/null; echo"}, "stdin": true}, in)
	t.Log("up", 32/time.Since(begin).Seconds(), "MB/s")
	begin = time.Now()
	r = a.run(map[string]any{"argv": []string{"dd", "if=/dev/zero", "bs=1M", "count=200"}}, nil)
	t.Log("down", float64(r.out[0].Len()>>20)/time.Since(begin).Seconds(), "MB/s", r.out[0].Len())
	begin = time.Now()
	r = a.run(map[string]any{"argv": []string{"cat"}, "stdin": true}, in)
	t.Log("both", 32/time.Since(begin).Seconds(), "MB/s")
	if !bytes.Equal(r.out[0].Bytes(), in) {
		t.Fatal("cat")
	}
	// Abrupt disconnects in mid-traffic.
	for i := range 50 {
		id := newID()
		c, err := a.start(map[string]any{"id": id, "argv": []string{"sh", "-c", "dd if=/dev/zero bs=64k count=64 2>/dev/null; echo end"}})
		if err != nil {
			t.Fatal(i, err)
		}
		for range rand.Intn(20) {
			if _, err := c.in.Next(); err != nil {
				t.Fatal(err)
			}
		}
		a.breakAll()
		c.drop()
		a.http.CloseIdleConnections()
		a.http = a.client()
		c, err = a.start(map[string]any{"id": id, "argv": []string{"false"}})
		if err != nil {
			t.Fatal(i, err)
		}
		r, err := c.finish()
		if err != nil || c.hello.Created || r.out[0].Len() != 64*65536+4 {
			t.Fatal(i, err, c.hello, r.out[0].Len(), r.exit)
		}
	}
	r = a.run(sh("i=0; while [ $i -lt 100 ]; do (sleep 0.01 &) ; i=$((i+1)); done; sleep 0.5; ps | grep -c Z"), nil)
	t.Logf("zombies: %s", r.out[0].String())
	r = a.run(with(sh("sleep 50 & sleep 51"), "timeoutMs", 200), nil)
	t.Logf("%+v", r.exit)
	r = a.run(map[string]any{"argv": []string{"sh", "-c", "tail -c 210000000 /dev/zero; echo after $?"}}, nil)
	t.Logf("oom: %+v %s", r.exit, r.out[1].String())
	_, v = a.call("GET", "/v1/stats", nil)
	t.Log(v)
	status, _ = a.call("POST", "/v1/shutdown", map[string]any{"graceMs": 1000})
	t.Log("shutdown", status)
}

// TestRemoteBeside is for a VM that runs the image's own init (vmsan.init).
func TestRemoteBeside(t *testing.T) {
	a := remoteAgent(t)
	status, v := a.call("GET", "/v1/hello", nil)
	v0 := v
	t.Log(status, v)
	if v["mode"] != "init" || v["pid"] == float64(1) {
		t.Fatal("not beside an init")
	}
	status, v = a.call("PUT", "/v1/config", map[string]any{"hostname": "beside"})
	t.Log(status, v)
	r := a.run(sh("hostname; ps aux 2>/dev/null | grep -v '\\[' || ps | grep -v '\\['; cat /proc/self/cgroup /proc/1/cgroup; systemctl is-system-running; systemctl list-units --failed; mount | grep -E ' (/|/run|/sys/fs/cgroup) '"), nil)
	t.Logf("%s%s%+v", r.out[0].String(), r.out[1].String(), r.exit)
	if r = a.run(with(sh("sleep 50 & sleep 51"), "timeoutMs", 200), nil); !r.exit.TimedOut {
		t.Fatal(r.exit)
	}
	// The agent is killed: it comes back on the same port.
	pid := int(v0["pid"].(float64))
	if c, err := a.start(sh(fmt.Sprintf("kill -9 %d; sleep 5", pid))); err == nil {
		defer c.drop()
	}
	time.Sleep(2 * time.Second)
	a.breakAll()
	status, v = a.call("GET", "/v1/hello", nil)
	t.Log(status, v)
	if int(v["pid"].(float64)) == pid {
		t.Fatal("the same agent")
	}
	status, _ = a.call("POST", "/v1/shutdown", map[string]any{"graceMs": 20000})
	t.Log("shutdown", status)
}
