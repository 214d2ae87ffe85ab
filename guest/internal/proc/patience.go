package proc

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	prSetTimerSlack = 29
	prGetTimerSlack = 30
)

// patience is by how much the kernel may be late to wake a thread of this program that sleeps for a time.
const patience = 4 * time.Millisecond

// prompt is the same of what this program starts, in nanoseconds; 0: it is as patient as this program.
var prompt uintptr

// BePatient lets timers of this program come late by up to patience, together with whatever else wakes the processor then.
// While anything of a Go program runs, its monitor thread looks around every 20 µs, some 80 times in a short command: a timer,
// an interrupt and two switches of threads each. What the program starts has the kernel's usual timers. It is to be called
// before anything is started, with /proc mounted.
func BePatient() {
	was, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prGetTimerSlack, 0, 0)
	if e != 0 || prompt != 0 {
		return // this program goes on as it is
	}
	prompt = was
	// New threads have what the one that makes them has: once no new ones have come meanwhile, none is missed any more.
	for known := 0; ; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil || len(threads) == known {
			return
		}
		known = len(threads)
		for _, thread := range threads {
			// Who is not root may set his own alone, and the others stay prompt.
			_ = os.WriteFile("/proc/"+thread.Name()+"/timerslack_ns", []byte(strconv.Itoa(int(patience))), 0)
		}
	}
}

// forkExec is syscall.ForkExec for a child with timers of its own: it inherits those of the thread that makes it.
func forkExec(file string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if prompt == 0 {
		return syscall.ForkExec(file, argv, attr)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	setSlack(prompt)
	defer setSlack(uintptr(patience))
	return syscall.ForkExec(file, argv, attr)
}

// setSlack sets this thread's; it cannot fail.
func setSlack(ns uintptr) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, ns, 0)
}
