package restore

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
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

// TestLeaving: connections stay whose ends are both in the guest, in whichever namespaces, but for those over
// addresses that are others in a clone.
func TestLeaving(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("198.19.0.2"), netip.MustParseAddr("fd00::2")}
	all := []connection{}
	add := func(number int, local, peer string) {
		all = append(all, connection{1, number, netip.MustParseAddrPort(local), netip.MustParseAddrPort(peer)})
	}
	add(1, "127.0.0.1:80", "127.0.0.1:4000")
	add(2, "[::1]:80", "[::1]:4000")
	// Two containers.
	add(3, "172.17.0.2:5432", "172.17.0.3:4000")
	add(4, "172.17.0.3:4000", "172.17.0.2:5432")
	// The same addresses, another port.
	add(5, "172.17.0.2:5432", "172.17.0.3:4001")
	// The VM with itself by its own name.
	add(6, "198.19.0.2:80", "198.19.0.2:4000")
	add(7, "198.19.0.2:4000", "198.19.0.2:80")
	add(8, "[fd00::2]:4000", "[fd00::3]:80")
	// A container's connection with the world.
	add(9, "172.17.0.3:4002", "192.0.2.1:443")
	// Two containers again, one of which has not accepted yet.
	add(10, "172.17.0.3:4003", "172.17.0.2:5432")
	queued := []connection{{0, -1, netip.MustParseAddrPort("172.17.0.2:5432"), netip.MustParseAddrPort("172.17.0.3:4003")}}
	var cut []int
	for _, c := range leaving(all, queued, own) {
		cut = append(cut, c.number)
	}
	if want := []int{5, 6, 7, 8, 9}; !slices.Equal(cut, want) {
		t.Errorf("cut %v, want %v", cut, want)
	}
}

// TestConnectionsOf: both ends of this process's own connection are found, and its listener is none.
func TestConnectionsOf(t *testing.T) {
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	near := netip.MustParseAddrPort(c.LocalAddr().String())
	found := map[netip.AddrPort]netip.AddrPort{}
	for _, one := range connectionsOf(os.Getpid(), map[string]bool{}) {
		found[one.local] = one.peer
	}
	far := netip.AddrPortFrom(near.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
	if found[near] != far || found[far] != near {
		t.Errorf("%v: %v, %v: %v", near, found[near], far, found[far])
	}
}

// TestUnaccepted: an end that waits to be accepted is found, also when its client has said all; once accepted it is
// none, and neither is a listener.
func TestUnaccepted(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::]:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Log(address, err) // no version 6
			continue
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		host := map[string]string{"[::1]:0": "::1"}[address]
		if host == "" {
			host = "127.0.0.1"
		}
		c, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		near := netip.MustParseAddrPort(c.LocalAddr().String())
		far := netip.AddrPortFrom(near.Addr(), uint16(port))
		queued := func() bool {
			return slices.ContainsFunc(unaccepted("/proc/self/net"), func(one connection) bool {
				return one.local == far && one.peer == near
			})
		}
		if !queued() {
			t.Error(address, "is not found")
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if queued() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !queued() {
			t.Error(address, "is not found once its client has said all")
		}
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if queued() {
			t.Error(address, "is still found")
		}
	}
}
