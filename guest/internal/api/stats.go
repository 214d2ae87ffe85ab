package api

import (
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"vmsan/guest/internal/proc"
)

// tickMs is the length of a clock tick of /proc in milliseconds: USER_HZ is 100 on all
// architectures that the agent is built for.
const tickMs = 10

// stats tells how the guest and the agent are doing. Times and bytes count from the boot.
func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	fds := 0
	if names, err := os.ReadDir("/proc/self/fd"); err == nil {
		fds = len(names) - 1 // the directory itself
	}
	busy, idle := cpuTimes(readText("/proc/stat"))
	received, sent := netBytes(readText("/proc/net/dev"))
	read, written := diskBytes(readText("/proc/diskstats"))
	total, free := room("/")
	writeJSON(w, map[string]any{
		"memTotalKib": MemTotal(), "memAvailableKib": memInfo("MemAvailable"), "memCachedKib": memInfo("Cached"),
		"cpuBusyMs": busy, "cpuIdleMs": idle, "loadAvg": loadAvg(),
		"diskTotalBytes": total, "diskFreeBytes": free, "readBytes": read, "writtenBytes": written,
		"receivedBytes": received, "sentBytes": sent,
		"processes": proc.Count(), "streams": s.streams.Len(), "goroutines": runtime.NumGoroutine(), "fds": fds,
	})
}

// processes lists what runs besides kernel and agent.
func (s *Server) processes(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"uptimeMs": uptimeMs(readText("/proc/uptime")), "processes": proc.List()})
}

// uptimeMs reads /proc/uptime.
func uptimeMs(text string) int64 {
	seconds, _, _ := strings.Cut(text, " ")
	f, _ := strconv.ParseFloat(seconds, 64) // not mounted: 0
	return int64(f * 1000)
}

// readText gives a file of /proc, nothing if it cannot be read.
func readText(path string) string {
	b, _ := os.ReadFile(path) // not mounted, or not allowed: its figures are 0
	return string(b)
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// cpuTimes gives the busy and the idle time of all processors together, in milliseconds.
func cpuTimes(stat string) (busy, idle int64) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 6 || f[0] != "cpu" {
		return 0, 0
	}
	for i, text := range f[1:min(len(f), 9)] { // guests' times behind are in the first two already
		if i == 3 || i == 4 {
			idle += number(text) * tickMs
		} else {
			busy += number(text) * tickMs
		}
	}
	return busy, idle
}

// netBytes adds up what all interfaces but the loopback have received and sent.
func netBytes(dev string) (received, sent int64) {
	for _, line := range strings.Split(dev, "\n") {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		received += number(f[0])
		sent += number(f[8])
	}
	return received, sent
}

// diskBytes adds up what was read of and written to the VM's disks.
func diskBytes(stats string) (read, written int64) {
	const sector = 512 // whatever the disk's own is
	for _, line := range strings.Split(stats, "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.HasPrefix(f[2], "vd") || len(f[2]) != 3 {
			continue
		}
		read += number(f[5]) * sector
		written += number(f[9]) * sector
	}
	return read, written
}

// room gives the size of a file system and what of it is free.
func room(path string) (total, free int64) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, 0
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bfree) * fs.Bsize
}

// MemTotal gives the memory in KiB, 0 if the kernel does not say. Not out of /proc/meminfo, all lines of which the kernel
// would write at each boot.
func MemTotal() int64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) >> 10
}

// memInfo gives a line of /proc/meminfo in KiB, 0 if it cannot be read.
func memInfo(name string) int64 {
	for _, line := range strings.Split(readText("/proc/meminfo"), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return number(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
		}
	}
	return 0
}

func loadAvg() []float64 {
	out := []float64{0, 0, 0}
	for i, f := range strings.Fields(readText("/proc/loadavg")) {
		if i < len(out) {
			out[i], _ = strconv.ParseFloat(f, 64)
		}
	}
	return out
}
