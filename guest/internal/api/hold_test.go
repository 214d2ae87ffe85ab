package api

import (
	"testing"

	"vmsan/guest/internal/wire"
)

// TestHold: a detached command whose output is held waits, however often its
// client leaves, and whoever comes later gets every byte.
func TestHold(t *testing.T) {
	a := newAgent(t, nil)
	const size = 1 << 20
	id := newID()
	spec := map[string]any{
		"id": id, "detach": true, "hold": true, "ringBytes": 64 << 10,
		"argv": []string{"sh", "-c", "yes 0123456 | head -c 1048576; exit 3"},
	}
	c, err := a.start(spec)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.send(wire.Frame{Type: wire.Detach})
	c.drop()
	info := func() map[string]any {
		_, reply := a.call("GET", "/v1/streams/"+id, nil)
		return reply
	}
	eventually(t, "the ring is full", func() bool {
		out, _ := info()["stdout"].(map[string]any)
		return out["end"] == "65536"
	})
	if info()["running"] != true {
		t.Fatal("it did not wait")
	}
	c, err = a.open("/v1/streams/"+id, wire.Attach, map[string]any{"stdout": "0", "stderr": "0"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.finish()
	if err != nil || r.gaps != 0 || r.out[0].Len() != size || r.exit.ExitCode != 3 {
		t.Fatalf("%v, %d gaps, %d bytes, exit %d", err, r.gaps, r.out[0].Len(), r.exit.ExitCode)
	}
}
