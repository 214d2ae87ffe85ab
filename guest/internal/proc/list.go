package proc

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// clockTicks is USER_HZ, 100 on all architectures that the agent is built for.
const clockTicks = 100

// kernelThread is PF_KTHREAD of a process's flags.
const kernelThread = 0x00200000

// Listed is one process of the guest.
type Listed struct {
	PID  int    `json:"pid"`
	PPID int    `json:"ppid"`
	UID  uint32 `json:"uid"`
	// TTY is its terminal below /dev, empty for none.
	TTY   string `json:"tty"`
	State string `json:"state"`
	// StartMs counts from the boot, CPUMs is what it has used of processors.
	StartMs int64    `json:"startMs"`
	CPUMs   int64    `json:"cpuMs"`
	SizeKib int64    `json:"sizeKib"`
	RSSKib  int64    `json:"rssKib"`
	Args    []string `json:"args"`
}

// List gives all processes but the kernel's threads and the agent's own.
func List() []Listed {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	own, _ := os.Stat("/proc/self/exe") // nil: nothing is known to be the agent's
	out := []Listed{}
	for _, entry := range names {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid, own); ok {
			out = append(out, p)
		}
	}
	return out
}

// readProcess reads one; false: it has ended, or is none of the guest's work.
func readProcess(pid int, own os.FileInfo) (Listed, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Listed{}, false
	}
	p, flags, ok := parseStat(string(b))
	if !ok || flags&kernelThread != 0 {
		return p, false
	}
	if exe, err := os.Stat(dir + "/exe"); err == nil && own != nil && os.SameFile(exe, own) {
		return p, false
	}
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) == nil {
		p.UID = st.Uid
	}
	if line, err := os.ReadFile(dir + "/cmdline"); err == nil && len(line) > 0 {
		line = bytes.TrimRight(line[:min(len(line), 4096)], "\x00")
		p.Args = strings.Split(strings.ToValidUTF8(string(line), "?"), "\x00")
	}
	return p, true
}

// parseStat reads a line of proc(5)'s stat; a process without arguments has its name in brackets.
func parseStat(line string) (p Listed, flags uint64, ok bool) {
	// The name is in parentheses and may contain anything.
	from, to := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if from < 0 || to < from {
		return p, 0, false
	}
	f := strings.Fields(line[to+1:])
	if len(f) < 22 {
		return p, 0, false
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return n
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:from]))
	flags, _ = strconv.ParseUint(f[6], 10, 64)
	p = Listed{
		PID: pid, PPID: int(number(1)), State: f[0], TTY: ttyName(number(4)),
		CPUMs: (number(11) + number(12)) * 1000 / clockTicks, StartMs: number(19) * 1000 / clockTicks,
		SizeKib: number(20) >> 10, RSSKib: number(21) * int64(os.Getpagesize()) >> 10,
		Args: []string{"[" + strings.ToValidUTF8(line[from+1:to], "?") + "]"},
	}
	return p, flags, err == nil
}

// ttyName is the name of a terminal's device number.
func ttyName(dev int64) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return ""
	case major >= 136 && major <= 143:
		return "pts/" + strconv.FormatInt((major-136)<<8|minor, 10)
	case major == 4 && minor < 64:
		return "tty" + strconv.FormatInt(minor, 10)
	case major == 5 && minor == 1:
		return "console"
	}
	return "?"
}
