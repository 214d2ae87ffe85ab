package proc

import (
	"testing"
	"time"
)

// TestFreezeLapses: what nobody lets go goes on by itself, after what is to be done first, and not before
// the limit that was set last.
func TestFreezeLapses(t *testing.T) {
	lapsed := make(chan struct{})
	f := &Freezer{}
	f.Lapsed = func() {
		if f.gate.TryRLock() {
			t.Error("the work went on first")
		}
		close(lapsed)
	}
	f.Freeze(0, time.Hour)
	f.Extend(time.Millisecond)
	<-lapsed
	f.Enter()
	f.Leave()
	// What goes on already is not held, and does not lapse once more.
	f.Extend(time.Millisecond)
	f.Freeze(0, time.Hour)
	f.Thaw()
	f.Extend(time.Millisecond)
	f.Enter()
	f.Leave()
}
