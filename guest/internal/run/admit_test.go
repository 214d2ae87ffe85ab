package run

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmsan/guest/internal/wire"
)

func TestCommandsWaitForMemory(t *testing.T) {
	var left atomic.Int64
	left.Store(100)
	a := &admission{patience: time.Minute, memory: func() (uint64, uint64) {
		return uint64(max(0, left.Load())) << 20, 256 << 20
	}}
	var most, now atomic.Int64
	var done sync.WaitGroup
	for range 300 {
		done.Add(1)
		go func() {
			defer done.Done()
			if err := a.enter(); err != nil {
				t.Error(err)
				return
			}
			// Each takes a MiB while it runs: beyond the 32 that never wait, 68 fit over the reserve.
			left.Add(-1)
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(5 * time.Millisecond)
			now.Add(-1)
			left.Add(1)
			a.leave()
		}()
	}
	done.Wait()
	if m := most.Load(); m > 90 {
		t.Errorf("%d commands at once", m)
	}
	if a.running.Load() != 0 {
		t.Errorf("%d are counted as running", a.running.Load())
	}
}

func TestCommandsAreRefusedInTheEnd(t *testing.T) {
	a := &admission{patience: 50 * time.Millisecond, memory: func() (uint64, uint64) { return 0, 256 << 20 }}
	for range freely {
		if err := a.enter(); err != nil {
			t.Fatal("one of the first was refused:", err)
		}
	}
	began := time.Now()
	var refused sync.WaitGroup
	for range 20 {
		refused.Add(1)
		go func() {
			defer refused.Done()
			if err := a.enter(); wire.AsInfo(err, "", "").Code != wire.CodeLimit {
				t.Error("not refused as it should be:", err)
			}
		}()
	}
	refused.Wait()
	// All of them have waited at the same time, not one after another.
	if d := time.Since(began); d > 800*time.Millisecond {
		t.Errorf("they were refused after %v", d)
	}
	a.leave()
	if err := a.enter(); err != nil {
		t.Error("refused although few run:", err)
	}
}

func TestMemoryIsRead(t *testing.T) {
	available, total := readMemory()
	if total < 1<<20 || available == 0 || available > total {
		t.Errorf("%d of %d bytes", available, total)
	}
}
