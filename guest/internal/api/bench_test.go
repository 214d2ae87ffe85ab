package api

import (
	"testing"

	"vmsan/guest/internal/wire"
)

// BenchmarkDown measures a command's output: head, agent, socket and client on one machine.
func BenchmarkDown(b *testing.B) {
	const size = 256 << 20
	t := &testing.T{}
	a := newAgentAt(t, b.TempDir(), nil)
	defer a.close()
	b.SetBytes(size)
	for range b.N {
		c, err := a.start(sh("head -c 268435456 /dev/zero"))
		if err != nil {
			b.Fatal(err)
		}
		got := 0
		for {
			f, err := c.in.Next()
			if err != nil {
				b.Fatal(err)
			}
			if f.Type == wire.Stdout {
				got += len(f.Data)
				_ = c.send(wire.Frame{Type: wire.Ack, Stream: 1, Offset: f.Offset + uint64(len(f.Data))})
			}
			if f.Type == wire.ExitT {
				break
			}
		}
		c.drop()
		if got != size {
			b.Fatal(got)
		}
	}
}

// BenchmarkExec measures a command's whole round trip.
func BenchmarkExec(b *testing.B) {
	t := &testing.T{}
	a := newAgentAt(t, b.TempDir(), nil)
	defer a.close()
	for range b.N {
		c, err := a.start(map[string]any{"argv": []string{"true"}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.finish(); err != nil {
			b.Fatal(err)
		}
	}
}
