package api

import (
	"testing"
	"time"
)

// TestUnclaimed: a VM that nobody configures powers itself off; one that has been
// configured does not.
func TestUnclaimed(t *testing.T) {
	off := make(chan struct{}, 1)
	watch := func(o *Options) { o.PowerOff = func(bool) { off <- struct{}{} } }
	a := newAgent(t, watch)
	a.server.EndUnclaimed(time.Millisecond)
	<-off
	// A rehearsal is no claim: the host that makes a template may be killed as well.
	r := newAgent(t, watch)
	if status, reply := r.call("PUT", "/v1/config", map[string]any{"rehearsal": map[string]any{}}); status != 200 {
		t.Fatalf("rehearsal: %d %v", status, reply)
	}
	r.server.EndUnclaimed(time.Millisecond)
	<-off
	b := newAgent(t, watch)
	if status, reply := b.call("PUT", "/v1/config", map[string]any{}); status != 200 {
		t.Fatalf("config: %d %v", status, reply)
	}
	b.server.EndUnclaimed(time.Millisecond)
	select {
	case <-off:
		t.Fatal("powered off in spite of its configuration")
	case <-time.After(50 * time.Millisecond):
	}
}
