// Package netcfg applies the host's configuration to the guest: name, clock,
// randomness, addresses, names, mounts, environment (PUT /v1/config).
package netcfg

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/restore"
	"vmsan/guest/internal/wire"
)

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

func setClock(ns int64) error {
	tv := syscall.NsecToTimeval(ns)
	return syscall.Settimeofday(&tv)
}

// AdjustClock moves the wall clock by delta nanoseconds.
func AdjustClock(delta int64) error { return setClock(time.Now().UnixNano() + delta) }
