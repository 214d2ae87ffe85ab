package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// taskKib is the memory that each process or thread of commands stands for, in
// KiB: a small shell takes some 250 of them.
const taskKib = 512

// Cgroups makes a cgroup for each command below one directory of a cgroup v2 tree.
type Cgroups struct {
	root string
	// commands is root/commands, which has a limit of its own.
	commands string
}

// NewCgroups prepares root/vmsan; nil when the tree cannot be used, in which
// case trees are found by session and parentage. Commands together may have one
// process or thread for each taskKib of memory (total in KiB, 0: unknown, no
// bound), and get half of a contended processor: a fork bomb neither fills the
// memory nor keeps the agent from its turn.
func NewCgroups(mount string, total int64) *Cgroups {
	root := filepath.Join(mount, "vmsan")
	commands := filepath.Join(root, "commands")
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
		return nil
	}
	for _, dir := range []string{root, commands} {
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return nil
		}
	}
	// Each controller on its own: one that is missing must not keep out the
	// others, and none is needed for killing.
	for _, dir := range []string{mount, root, commands} {
		for _, c := range []string{"+memory", "+pids"} {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(c), 0)
		}
	}
	// Of the processors the root's members, the agent among them, and all of vmsan
	// have equal shares.
	_ = os.WriteFile(filepath.Join(mount, "cgroup.subtree_control"), []byte("+cpu"), 0)
	if total > 0 {
		// Without the pids controller the kernel's own limit holds.
		_ = os.WriteFile(filepath.Join(commands, "pids.max"), []byte(strconv.FormatInt(total/taskKib, 10)), 0)
	}
	return &Cgroups{root: root, commands: commands}
}

// Group is the cgroup of one command; a nil *Group is valid and knows nothing.
type Group struct {
	path string
	dir  *os.File
}

// New makes the group of stream id; nil if that fails.
func (c *Cgroups) New(id string) *Group {
	if c == nil {
		return nil
	}
	path := filepath.Join(c.commands, "s-"+id)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		_ = os.Remove(path)
		return nil
	}
	return &Group{path: path, dir: dir}
}

// Join moves process pid into a leaf of its own (the agent beside systemd).
func (c *Cgroups) Join(pid int) {
	if c == nil {
		return
	}
	leaf := filepath.Join(c.root, agentLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !os.IsExist(err) {
		return
	}
	// Failing leaves the agent where it is, which works too.
	_ = os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Sweep removes groups in which nothing runs any more, except those in use.
func (c *Cgroups) Sweep(inUse func(id string) bool) {
	if c == nil {
		return
	}
	entries, err := os.ReadDir(c.commands)
	if err != nil {
		return
	}
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), "s-"); ok && !inUse(id) {
			removeTree(filepath.Join(c.commands, e.Name()))
		}
	}
}

// removeTree removes a cgroup and the empty ones that the command made below
// it; a populated one refuses, and that is right.
func removeTree(path string) {
	if syscall.Rmdir(path) == nil {
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(path, e.Name()))
		}
	}
	_ = syscall.Rmdir(path)
}

// FD gives the descriptor for clone, -1 for a nil group.
func (g *Group) FD() int {
	if g == nil {
		return -1
	}
	return int(g.dir.Fd())
}

// Release closes the descriptor and removes the group if it is empty; Sweep gets it otherwise.
func (g *Group) Release() {
	if g == nil {
		return
	}
	_ = g.dir.Close()
	removeTree(g.path)
}

// Pids lists the processes of the group and of groups below it.
func (g *Group) Pids() []int {
	if g == nil {
		return nil
	}
	var pids []int
	_ = filepath.WalkDir(g.path, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil && n > 0 {
				pids = append(pids, n)
			}
		}
		return nil
	})
	return pids
}

// Kill kills everything in the group at once; false when the kernel cannot.
func (g *Group) Kill() bool {
	return g != nil && os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0) == nil
}

// OOMKills is how many processes of the group the kernel has killed for want of memory.
func (g *Group) OOMKills() int {
	if g == nil {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(g.path, "memory.events"))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}
