// Package netcfg applies the host's configuration to the guest: name, clock,
// randomness, addresses, names, mounts, environment (PUT /v1/config).
package netcfg

import (
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/proc"
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

// Reply says how long each step took, in milliseconds, and what was left out.
type Reply struct {
	Timings map[string]float64 `json:"timings"`
	// Skipped names parts that this mode of the agent does not apply.
	Skipped []string `json:"skipped,omitempty"`
	// Warnings are failures that leave the guest usable.
	Warnings []string `json:"warnings,omitempty"`
}

// Config applies requests, one at a time.
type Config struct {
	// System: the agent owns the machine. Otherwise only environment, directories and token are taken.
	System bool
	// Network: the agent owns the network namespace that it runs in, if not the machine.
	Network bool
	Pin     *channel.Pin
	// Own is the root of the VM's own file system below an overlay; nil if there is none.
	Own *os.File
	// Idle tells whether the guest's work is held and consists of no process; may be nil.
	Idle func() bool
	// Configured is called after each request that was applied; may be nil.
	Configured func()

	mu       sync.Mutex
	envMu    sync.RWMutex
	env      []string
	trustEnv []string
	limits   []proc.Limit
	hostname string
	// network was applied last; nil: none was.
	network *applied
	// hosts are those of /etc/hosts, but for the guest's own.
	hosts []HostEntry
	// written has the content of files as they were last written.
	written map[string]string
	// mounted has the targets of mounts that were made.
	mounted map[string]bool
	// memories are file systems in memory that several mounts show, by their names.
	memories map[string]string
	// fillings are files of the host's in the guest's memory.
	fillings fillings
	// sealed: the root is read-only, and what is still written is written in place.
	sealed bool
	// rehearsed: the files that are to be written are there, and nobody has seen them yet.
	rehearsed bool
}

// Env gives the VM's environment.
func (c *Config) Env() []string {
	c.envMu.RLock()
	defer c.envMu.RUnlock()
	return append(slices.Clip(c.trustEnv), c.env...)
}

// Limits gives what limits commands have besides the agent's own.
func (c *Config) Limits() []proc.Limit {
	c.envMu.RLock()
	defer c.envMu.RUnlock()
	return c.limits
}

// SetLimits gives limits to every command that is started from now on.
func (c *Config) SetLimits(limits []proc.Limit) error {
	if err := proc.CheckLimits(limits); err != nil {
		return err
	}
	c.envMu.Lock()
	defer c.envMu.Unlock()
	c.limits = limits
	return nil
}

// maxPath is the longest path that the kernel takes.
const maxPath = 4095

func bad(format string, args ...any) error { return wire.Errorf(wire.CodeRequest, format, args...) }

// Apply checks all of r before it changes anything, then applies it.
func (c *Config) Apply(r *Request) (*Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := check(r)
	if err != nil {
		return nil, err
	}
	reply := &Reply{Timings: map[string]float64{}}
	step := func(name string, wanted bool, do func() error) error {
		if !wanted {
			return nil
		}
		own := name == "env" || name == "token" || name == "directories" || c.Network && name == "network"
		if !c.System && !own {
			reply.Skipped = append(reply.Skipped, name)
			return nil
		}
		begin := time.Now()
		err := do()
		reply.Timings[name] = float64(time.Since(begin).Microseconds()) / 1000
		if err != nil {
			return wire.AsInfo(err, wire.CodeConfig, "The guest could not apply "+name+".")
		}
		return nil
	}
	soft := func(name string, wanted bool, do func() error) {
		if err := step(name, wanted, do); err != nil {
			reply.Warnings = append(reply.Warnings, err.Error())
		}
	}
	// Randomness first: nothing after a restore may use the parent's.
	steps := []error{
		step("seed", p.seed != nil, func() error { return addEntropy(p.seed) }),
		step("time", r.Time != nil, func() error { return setClock(p.unixNs) }),
		step("token", r.Token != "", func() error { c.Pin.Set(p.token); return nil }),
		step("env", r.Env != nil, func() error {
			c.envMu.Lock()
			defer c.envMu.Unlock()
			c.env = r.Env
			return nil
		}),
		// A VM that has only slept is the same one: what its user has set since it was told so stays.
		step("hostname", r.Hostname != "" && !(r.Restored == restore.ReasonResume && r.Hostname == c.hostname), func() error { return syscall.Sethostname([]byte(r.Hostname)) }),
		step("connections", r.Restored == restore.ReasonClone || r.Restored == restore.ReasonRestore, func() error {
			if c.Idle != nil && c.Idle() {
				return nil
			}
			return cutConnections()
		}),
		step("network", r.Network != nil && !(r.Restored == restore.ReasonResume && c.network != nil && reflect.DeepEqual(r.Network, c.network.network)), func() error {
			last := c.network
			if r.Restored == "" {
				last = nil
			}
			now, err := applyNetwork(r.Network, last)
			if err == nil {
				c.network = now
			}
			return err
		}),
		// After the network, whose cards have settings of their own.
		step("sysctls", len(r.Sysctls) > 0, func() error { return setSysctls("/proc/sys", r.Sysctls) }),
		step("mounts", len(r.Mounts) > 0, func() error {
			return c.mountAll(r.Mounts, r.Shared, func(err error) { reply.Warnings = append(reply.Warnings, err.Error()) })
		}),
	}
	for _, err := range steps {
		if err != nil {
			return nil, err
		}
	}
	if r.Hostname != "" {
		c.hostname = r.Hostname
	}
	if r.Network != nil {
		c.hosts = r.Network.Hosts
	}
	soft("directories", len(r.Directories) > 0, func() error { return makeDirectories(r.Directories) })
	soft("trust", r.Trust != nil, func() error {
		vars, err := r.Trust.apply("/")
		c.envMu.Lock()
		defer c.envMu.Unlock()
		c.trustEnv = vars
		return err
	})
	put := putFile(replaceFile)
	switch {
	case c.sealed || c.rehearsed && r.Restored == "":
		put = overwriteFile
	case r.Restored != "":
		put = overwriteUnused
	}
	write := func(step string, wanted bool, file func() text) {
		soft(step, wanted, func() error { return c.write(file(), put) })
	}
	write("generation", r.Generation != "", func() text {
		return text{dir: filepath.Dir(restore.GenerationFile), name: filepath.Base(restore.GenerationFile), content: r.Generation + "\n", mode: 0o444}
	})
	write("machineId", r.MachineID != "", func() text {
		return text{dir: "/etc", name: "machine-id", content: r.MachineID + "\n", mode: 0o444}
	})
	write("hostnameFile", r.Hostname != "", func() text {
		return text{dir: "/etc", name: "hostname", content: r.Hostname + "\n", mode: 0o644}
	})
	write("hosts", r.Hostname != "" || r.Network != nil, func() text {
		return text{dir: "/etc", name: "hosts", content: hostsFile(c.hostname, c.hosts), mode: 0o644, lines: true}
	})
	write("dns", r.Network != nil && (len(r.Network.DNS) > 0 || len(r.Network.Search) > 0), func() text {
		return text{dir: "/etc", name: "resolv.conf", content: resolvFile(r.Network), mode: 0o644, lines: true}
	})
	c.rehearsed = r.Rehearsal != nil
	if c.rehearsed {
		soft("rehearsal", true, func() error { rehearse(r.Rehearsal); return nil })
	}
	if c.Configured != nil {
		c.Configured()
	}
	return reply, nil
}

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

func setClock(ns int64) error {
	tv := syscall.NsecToTimeval(ns)
	return syscall.Settimeofday(&tv)
}

// AdjustClock moves the wall clock by delta nanoseconds.
func AdjustClock(delta int64) error { return setClock(time.Now().UnixNano() + delta) }
