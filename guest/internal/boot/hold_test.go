package boot

import (
	"io"
	"net"
	"strings"
	"testing"
)

// said plays the host: it reads that the machine waits, says something, and gives what the machine makes of it.
func said(t *testing.T, parts ...string) (unixNs int64, seed []byte, answer string, err error) {
	t.Helper()
	machine, host := net.Pipe()
	heard := make(chan string, 1)
	go func() {
		held := make([]byte, len(heldLine))
		_, _ = io.ReadFull(host, held)
		for _, part := range parts {
			_, _ = io.WriteString(host, part)
		}
		rest, _ := io.ReadAll(host)
		heard <- string(held) + string(rest)
	}()
	unixNs, seed, err = awaitGo(machine)
	_ = machine.Close()
	return unixNs, seed, <-heard, err
}

func TestGoesOnWithTimeAndRandomness(t *testing.T) {
	for _, parts := range [][]string{
		{"VMSAN-GO-1 1700000000000000001 00ff10\n"},
		{"VMSAN-GO-1 17000", "00000000000001 00f", "f10", "\n"},
	} {
		unixNs, seed, answer, err := said(t, parts...)
		if err != nil || unixNs != 1700000000000000001 || string(seed) != "\x00\xff\x10" {
			t.Errorf("%q: %d, %x, %v", parts, unixNs, seed, err)
		}
		if answer != "VMSAN-HELD-1\nVMSAN-GOING-1\n" {
			t.Errorf("%q: the host hears %q", parts, answer)
		}
	}
}

func TestDoesNotGoOnOtherwise(t *testing.T) {
	for _, line := range []string{
		"\n", "VMSAN-GO-1\n", "VMSAN-GO-2 1 00\n", "VMSAN-GO-1 soon 00\n", "VMSAN-GO-1 1 xyz\n", "VMSAN-GO-1 1 00 more\n",
		strings.Repeat("x", maxGoLine+1),
	} {
		if _, _, answer, err := said(t, line); err == nil || answer != heldLine {
			t.Errorf("%q: %v, the host hears %q", line, err, answer)
		}
	}
}
