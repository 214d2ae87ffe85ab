package run

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmsan/guest/internal/wire"
)

const (
	// freely is how many commands may run before a new one has to look whether
	// there is memory for it: a guest that is short of memory can always be repaired.
	freely = 32
	// patience is how long a command waits for memory before it is refused.
	patience = 30 * time.Second
	// maxReserve is the most memory that is left for what runs, in bytes.
	maxReserve = 64 << 20
)

// admission keeps a thousand commands that come at once from driving the guest
// into its last page of memory, where nothing gets on any more: they wait in a
// line until there is room.
type admission struct {
	running atomic.Int64
	// line is held by the command that is next.
	line sync.Mutex
	// memory gives the bytes that are available and those that there are.
	memory func() (available, total uint64)
	// patience as above; tests have less.
	patience time.Duration
}

func newAdmission() *admission { return &admission{memory: readMemory, patience: patience} }

// enter waits for room and counts the command; leave must follow if there was no error.
func (a *admission) enter() error {
	deadline := time.Now().Add(a.patience)
	a.line.Lock()
	defer a.line.Unlock()
	for a.running.Load() >= freely && !a.roomy() {
		if time.Now().After(deadline) {
			return wire.Errorf(wire.CodeLimit, "The guest has no memory left for one more command besides the %d that run.", a.running.Load()).
				Remedy("Wait for some of them, or give the VM more memory.")
		}
		time.Sleep(10 * time.Millisecond)
	}
	a.running.Add(1)
	return nil
}

// leave counts a command that is over.
func (a *admission) leave() { a.running.Add(-1) }

// roomy tells whether an eighth of the memory, 64 MiB at most, is left.
func (a *admission) roomy() bool {
	available, total := a.memory()
	return available >= min(total/8, maxReserve)
}

// readMemory asks the kernel; where it does not say there is room.
func readMemory() (available, total uint64) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 1, 0
	}
	available = 1
	for _, line := range strings.Split(string(b), "\n") {
		name, rest, _ := strings.Cut(line, ":")
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "MemAvailable":
			available = n << 10
		case name == "MemTotal":
			total = n << 10
		}
	}
	return available, total
}
