package restore

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestNoneLeaves: sockets that are all listed and within the machine need no look at the processes; what is not
// listed, or leaves, does.
func TestNoneLeaves(t *testing.T) {
	const head = "  sl  local_address rem_address   st\n"
	const listening = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n"
	const within = "   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000\n   2: 0100007F:C001 0100007F:1F90 01 00000000:00000000\n"
	const leaving = "   1: 0200A8C0:C001 01020304:0050 01 00000000:00000000\n"
	const waiting = "   3: 0200A8C0:C001 01020304:0050 06 00000000:00000000\n"
	const within6 = "   0: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C001 01 00000000:00000000\n"
	const mapped = "   0: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C001 01 00000000:00000000\n"
	const leaving6 = "   0: 000000000000000000000000010000FE:1F90 000000000000000000000000020000FE:C001 01 00000000:00000000\n"
	for name, c := range map[string]struct {
		alloc, tcp, tcp6 string
		none             bool
	}{
		"no socket":                   {"0", head, head, true},
		"listeners and loopback":      {"3", head + listening + within, head, true},
		"one that leaves":             {"4", head + listening + within + leaving, head, false},
		"one that has ended":          {"1", head + listening + waiting, head, true},
		"one that is nowhere listed":  {"2", head + listening, head, false},
		"loopback, version 6":         {"2", head, head + within6 + mapped, true},
		"one that leaves, version 6":  {"1", head, head + leaving6, false},
		"what cannot be read":         {"1", head + "garbage\n", head, false},
		"a count that cannot be read": {"x", head, head, false},
		"a machine without version 6": {"1", head + listening, "", true},
	} {
		dir := t.TempDir()
		files := map[string]string{"sockstat": "sockets: used 9\nTCP: inuse 1 orphan 0 tw 1 alloc " + c.alloc + " mem 1\nUDP: inuse 0 mem 0\n", "tcp": c.tcp}
		if c.tcp6 != "" {
			files["tcp6"] = c.tcp6
		}
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := noneLeaves(dir); got != c.none {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestNoneLeavesReadsThisKernel: its own words are understood.
func TestNoneLeavesReadsThisKernel(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, ok := allocated("/proc/net"); !ok {
		t.Error("the number of sockets")
	}
	if rows, leaves, ok := listed("/proc/net/tcp", 8); !ok || rows == 0 {
		t.Error("the list of sockets", rows, leaves, ok)
	}
}
