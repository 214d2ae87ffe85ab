package proc

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// SignalTree signals every process of the tree led by leader: its cgroup, else
// the members of its session and all their descendants. It repeats while new
// ones appear, so that a fork at the wrong moment escapes no KILL.
func SignalTree(g *Group, leader int, sig syscall.Signal) {
	if sig == syscall.SIGKILL && g.Kill() {
		return
	}
	done := map[int]bool{}
	rounds := 1
	if sig == syscall.SIGKILL {
		rounds = 16
	}
	for range rounds {
		pids := g.Pids()
		if g == nil {
			pids = treeOf(leader)
		}
		fresh := false
		for _, p := range pids {
			if done[p] || p == os.Getpid() || p <= 1 {
				continue
			}
			done[p], fresh = true, true
			// ESRCH: it has ended by itself.
			_ = syscall.Kill(p, sig)
			if sig == syscall.SIGTERM || sig == syscall.SIGHUP {
				// A stopped process must run to act on it.
				_ = syscall.Kill(p, syscall.SIGCONT)
			}
		}
		if !fresh {
			return
		}
	}
}

// procStat is what the tree needs of /proc/PID/stat.
type procStat struct{ pid, ppid, session int }

func readProcs() []procStat {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var out []procStat
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue
		}
		// The name is in parentheses and may contain anything.
		i := strings.LastIndexByte(string(b), ')')
		if i < 0 {
			continue
		}
		f := strings.Fields(string(b[i+1:]))
		if len(f) < 4 || f[0] == "Z" {
			continue
		}
		ppid, _ := strconv.Atoi(f[1])
		sid, _ := strconv.Atoi(f[3])
		out = append(out, procStat{pid, ppid, sid})
	}
	return out
}

// treeOf lists the session of leader and every descendant of its members.
func treeOf(leader int) []int {
	procs := readProcs()
	in := map[int]bool{leader: true}
	for _, p := range procs {
		if p.session == leader {
			in[p.pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range procs {
			if in[p.ppid] && !in[p.pid] {
				in[p.pid], grown = true, true
			}
		}
	}
	var out []int
	for _, p := range procs {
		if in[p.pid] {
			out = append(out, p.pid)
		}
	}
	return out
}

// Descendants lists every process below this one.
func Descendants() []int {
	var out []int
	for _, p := range treeOf(os.Getpid()) {
		if p != os.Getpid() {
			out = append(out, p)
		}
	}
	return out
}

// Count is the number of processes.
func Count() int { return len(readProcs()) }

// TreeAlive tells whether anything of the session of leader is left.
func TreeAlive(leader int) bool {
	for _, p := range treeOf(leader) {
		if p != os.Getpid() {
			return true
		}
	}
	return false
}

// UserProcesses lists every process but this one and the kernel's threads.
func UserProcesses() []int {
	var out []int
	for _, p := range readProcs() {
		// Kernel threads are children of kthreadd (2).
		if p.pid != os.Getpid() && p.pid != 2 && p.ppid != 2 {
			out = append(out, p.pid)
		}
	}
	return out
}
