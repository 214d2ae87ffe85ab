package boot

import (
	"fmt"
	"testing"
)

func TestNodesOfModules(t *testing.T) {
	for line, want := range map[string]string{
		"tun net/tun c10:200":         "net/tun c 10 200",
		"loop loop-control c10:237":   "loop-control c 10 237",
		"nbd nbd0 b43:4294967295":     "nbd0 b 43 4294967295",
		"":                            "",
		"# Device nodes to trigger":   "",
		"tun net/tun":                 "",
		"tun net/tun c10":             "",
		"tun net/tun x10:200":         "",
		"tun net/tun c:200":           "",
		"tun net/tun c10:-1":          "",
		"tun net/tun c10:4294967296":  "",
		"tun ../tun c10:200":          "",
		"tun /etc/tun c10:200":        "",
		"tun net/tun c10:200 trailer": "",
	} {
		got := ""
		if node, kind, major, minor, ok := parseNode(line); ok {
			got = fmt.Sprint(node, " ", string(kind), " ", major, " ", minor)
		}
		if got != want {
			t.Errorf("%q: %q, not %q", line, got, want)
		}
	}
}
