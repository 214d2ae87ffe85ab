package netcfg

import (
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/restore"
	"vmsan/guest/internal/wire"
)

// Request is the body of PUT /v1/config; what is absent is left as it is.
type Request struct {
	Hostname string `json:"hostname"`
	Time     *struct {
		UnixNs string `json:"unixNs"`
	} `json:"time"`
	Seed    string     `json:"seed"`
	Token   string     `json:"token"`
	Network *Network   `json:"network"`
	Env     wire.Texts `json:"env"`
	// Trust is an authority to trust, or that none is to be any more.
	Trust *Trust `json:"trust"`
	// Mounts are made in this order, once each.
	Mounts []Mount `json:"mounts"`
	// Shared are the places of what is mounted besides.
	Shared []string `json:"-"`
	// Sysctls are values by path below /proc/sys.
	Sysctls map[string]string `json:"sysctls"`
	// Directories are made if they are missing, absolute paths.
	Directories []string `json:"directories"`
	MachineID   string   `json:"machineId"`
	// Generation is written where programs can see that the guest was cloned.
	Generation string `json:"generation"`
	// Restored says that the guest has just come out of a snapshot, and why:
	// restore.ReasonClone and so on.
	Restored string `json:"restored"`
	// Rehearsal: nobody has claimed the guest yet. What is configured are placeholders, so that
	// the configuration of clones finds all files in place and has little left to do.
	Rehearsal *Rehearsal `json:"rehearsal"`
}

// Rehearsal is what a guest that others will be clones of is to have ready.
type Rehearsal struct {
	// Programs are names or paths of what is likely to be run first.
	Programs wire.Texts `json:"programs"`
}

// Network is the guest's whole network configuration.
type Network struct {
	Interfaces []Interface `json:"interfaces"`
	DNS        []string    `json:"dns"`
	Search     []string    `json:"search"`
	Hosts      []HostEntry `json:"hosts"`
}

// Interface is found by its MAC; the only one of a guest takes the MAC given.
type Interface struct {
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`
	Gateway4  string   `json:"gateway4"`
	Gateway6  string   `json:"gateway6"`
	// Routes lead over Gateway4 too, from an address of this interface's own.
	Routes []Route `json:"routes"`
	MTU    int     `json:"mtu"`
}

// Route says from which address the guest speaks to a range.
type Route struct {
	To     string `json:"to"`
	Source string `json:"source"`
}

// HostEntry is a line of /etc/hosts.
type HostEntry struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}

// maxPath is the longest path that the kernel takes.
const maxPath = 4095

func bad(format string, args ...any) error { return wire.Errorf(wire.CodeRequest, format, args...) }

// parsed has the values of a request that had to be read to be checked.
type parsed struct {
	seed   []byte
	unixNs int64
	token  channel.Token
}

// check validates everything, so that a bad request changes nothing.
func check(r *Request) (*parsed, error) {
	p := &parsed{}
	var err error
	if r.Time != nil {
		if p.unixNs, err = strconv.ParseInt(r.Time.UnixNs, 10, 64); err != nil || p.unixNs < 0 {
			return nil, bad("time.unixNs %.32q is no time.", r.Time.UnixNs)
		}
	}
	if r.Seed != "" {
		if p.seed, err = base64.StdEncoding.DecodeString(r.Seed); err != nil || len(p.seed) > 4096 {
			return nil, bad("seed is not base64 of at most 4096 bytes.")
		}
	}
	if r.Token != "" {
		b, err := hex.DecodeString(r.Token)
		if err != nil || len(b) != channel.TokenLen {
			return nil, bad("token is not 32 hexadecimal digits.")
		}
		copy(p.token[:], b)
	}
	if r.Hostname != "" && !validName(r.Hostname, 64) {
		return nil, bad("The host name %.80q is not usable.", r.Hostname)
	}
	for name, value := range map[string]string{"machineId": r.MachineID, "generation": r.Generation} {
		if b, err := hex.DecodeString(value); err != nil || value != "" && len(b) != 16 {
			return nil, bad("%s is not 32 hexadecimal digits.", name)
		}
	}
	if r.Rehearsal != nil && len(r.Rehearsal.Programs) > maxPrograms {
		return nil, bad("rehearsal names more than %d programs.", maxPrograms)
	}
	switch r.Restored {
	case "", restore.ReasonClone, restore.ReasonRestore, restore.ReasonResume:
	default:
		return nil, bad("restored %.32q is no reason.", r.Restored)
	}
	for _, e := range r.Env {
		if i := strings.IndexByte(e, '='); i <= 0 || strings.IndexByte(e, 0) >= 0 {
			return nil, bad("The environment entry %.64q is not NAME=VALUE.", e)
		}
	}
	if r.Trust != nil {
		for _, f := range r.Trust.Files {
			if !strings.HasPrefix(f, "/") || len(f) > maxPath || strings.ContainsRune(f, 0) {
				return nil, bad("The bundle %.128q is no absolute path of at most %d bytes.", f, maxPath)
			}
		}
	}
	for _, d := range r.Directories {
		if !strings.HasPrefix(d, "/") || len(d) > maxPath || strings.ContainsRune(d, 0) {
			return nil, bad("The directory %.128q is no absolute path of at most %d bytes.", d, maxPath)
		}
	}
	for i := range r.Mounts {
		if err := checkMount(&r.Mounts[i]); err != nil {
			return nil, err
		}
	}
	for path, value := range r.Sysctls {
		if !filepath.IsLocal(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) || len(value) > 4096 {
			return nil, bad("The setting %.128q is no path below /proc/sys with a value of at most 4096 bytes.", path)
		}
	}
	if r.Network != nil {
		if err := checkNetwork(r.Network); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func checkNetwork(n *Network) error {
	for _, i := range n.Interfaces {
		if _, err := parseMAC(i.MAC); err != nil {
			return bad("%.32q is no MAC address.", i.MAC)
		}
		for _, a := range i.Addresses {
			if _, err := netip.ParsePrefix(a); err != nil {
				return bad("%.64q is no address with a prefix length.", a)
			}
		}
		if g, err := netip.ParseAddr(i.Gateway4); i.Gateway4 != "" && (err != nil || !g.Is4()) {
			return bad("%.64q is no IPv4 gateway.", i.Gateway4)
		}
		if g, err := netip.ParseAddr(i.Gateway6); i.Gateway6 != "" && (err != nil || !g.Is6()) {
			return bad("%.64q is no IPv6 gateway.", i.Gateway6)
		}
		if err := checkRoutes(i); err != nil {
			return err
		}
		if i.MTU != 0 && (i.MTU < 68 || i.MTU > 65535) {
			return bad("The MTU %d is not between 68 and 65535.", i.MTU)
		}
	}
	for _, d := range n.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return bad("The name server %.64q is no address.", d)
		}
	}
	for _, s := range n.Search {
		if !validName(s, 253) {
			return bad("The search domain %.80q is not usable.", s)
		}
	}
	for _, h := range n.Hosts {
		if _, err := netip.ParseAddr(h.Address); err != nil {
			return bad("%.64q in hosts is no address.", h.Address)
		}
		for _, name := range h.Names {
			if !validName(name, 253) {
				return bad("The name %.80q in hosts is not usable.", name)
			}
		}
	}
	return nil
}

func checkRoutes(i Interface) error {
	for _, r := range i.Routes {
		if p, err := netip.ParsePrefix(r.To); err != nil || !p.Addr().Is4() || p != p.Masked() || p.Bits() == 0 {
			return bad("%.64q is no range of IPv4 addresses.", r.To)
		}
		if a, err := netip.ParseAddr(r.Source); err != nil || !a.Is4() {
			return bad("%.64q is no IPv4 address.", r.Source)
		}
		if i.Gateway4 == "" {
			return bad("The route to %s has no gateway.", r.To)
		}
	}
	return nil
}

// validName keeps line breaks, blanks and the like out of files and the kernel.
func validName(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}
