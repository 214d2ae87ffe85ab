package proc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of the leaves below root/vmsan that are never frozen: the agent beside
// an init, and hooks that run while everything else stands still.
const (
	agentLeaf = "agent"
	hookLeaf  = "hooks"
)

// Freezer holds the guest's work: every cgroup but the agent's own. While it
// holds, no command can be started. The zero value with Cgroups nil only keeps
// commands from starting.
type Freezer struct {
	Cgroups *Cgroups
	// Lapsed is called before work goes on because nobody has said anything for so long; may be nil. Its memory may have
	// come out of a file meanwhile, and its host have died before it could mend anything.
	Lapsed func()

	mu     sync.Mutex
	frozen bool
	// held are the groups that are frozen: while they are, there are no others.
	held []string
	// idle: no process is in any of these.
	idle  bool
	timer *time.Timer
	// gate is held for writing while the work is frozen.
	gate sync.RWMutex
}

// Enter waits until nothing is frozen and keeps it so until Leave.
func (f *Freezer) Enter() { f.gate.RLock() }

// Leave is Enter's end.
func (f *Freezer) Leave() { f.gate.RUnlock() }

// Freeze stops all work. It waits up to settle for the last process to stand
// still: one that is inside the kernel stops on its way out, so that no
// instruction of it runs either way. After limit the work goes on by itself: a
// host that is gone must not leave the guest frozen. Repeating it begins limit anew.
func (f *Freezer) Freeze(settle, limit time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.frozen {
		f.gate.Lock()
		f.frozen = true
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	f.timer = time.AfterFunc(limit, f.lapse)
	groups := f.groups()
	f.held = groups
	set(groups, "1")
	// Learned now: whoever comes out of a file has it at hand.
	f.idle = f.Cgroups != nil && !some(groups, func(events string) bool { return strings.Contains(events, populated) })
	for deadline := time.Now().Add(settle); ; time.Sleep(500 * time.Microsecond) {
		if still(groups) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// Extend begins the limit of what is frozen anew: whoever is to let it go on has been heard of.
func (f *Freezer) Extend(limit time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen && f.timer.Stop() {
		f.timer.Reset(limit)
	}
}

func (f *Freezer) lapse() {
	if f.Lapsed != nil {
		f.Lapsed()
	}
	f.Thaw()
}

// Thaw lets the work go on; nothing happens when it does already.
func (f *Freezer) Thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.frozen {
		return
	}
	f.timer.Stop()
	set(f.held, "0")
	f.held, f.frozen = nil, false
	f.gate.Unlock()
}

// groups lists the topmost cgroups that do not hold the agent.
func (f *Freezer) groups() []string {
	if f.Cgroups == nil {
		return nil
	}
	root := f.Cgroups.root
	var out []string
	for _, dir := range []string{filepath.Dir(root), root} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.IsDir() && path != root && (dir != root || e.Name() != agentLeaf && e.Name() != hookLeaf) {
				out = append(out, path)
			}
		}
	}
	return out
}

// set writes cgroup.freeze; a group that has gone meanwhile needs none.
func set(groups []string, value string) {
	for _, g := range groups {
		_ = os.WriteFile(filepath.Join(g, "cgroup.freeze"), []byte(value), 0)
	}
}

// still tells whether every group that has processes is frozen.
func still(groups []string) bool {
	return !some(groups, func(events string) bool {
		return strings.Contains(events, populated) && !strings.Contains(events, "frozen 1")
	})
}

// populated is what the kernel says of a group that has processes, in it or below it.
const populated = "populated 1"

// some tells whether it is true of what the kernel says of any of the groups.
func some(groups []string, is func(events string) bool) bool {
	return slices.ContainsFunc(groups, func(g string) bool {
		b, err := os.ReadFile(filepath.Join(g, "cgroup.events"))
		return err == nil && is(string(b))
	})
}

// Idle tells whether the work is frozen and consists of no process.
func (f *Freezer) Idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frozen && f.idle
}

// HookGroup gives the cgroup of hooks, made if it is missing; nil if that fails.
func (c *Cgroups) HookGroup() *Group {
	if c == nil {
		return nil
	}
	path := filepath.Join(c.root, hookLeaf)
	if err := os.Mkdir(path, 0o755); err != nil && !os.IsExist(err) {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	return &Group{path: path, dir: dir}
}
