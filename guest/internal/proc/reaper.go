// Package proc starts processes of the guest, signals their trees and collects
// their statuses; it also knows users and terminals.
package proc

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reaper is the only place of the agent that waits for children. Starting a
// process and registering it happens under the lock under which statuses are
// collected, so no status is lost and none is given to the wrong waiter.
type Reaper struct {
	// all: this process is init or subreaper, orphans come to it too.
	all     bool
	mu      sync.Mutex
	waiters map[int]chan syscall.WaitStatus
	stop    chan struct{}
}

// NewReaper starts collecting. With all set it also collects orphans.
func NewReaper(all bool) *Reaper {
	r := &Reaper{all: all, waiters: map[int]chan syscall.WaitStatus{}, stop: make(chan struct{})}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGCHLD)
	go func() {
		defer signal.Stop(ch)
		for {
			select {
			case <-ch:
				r.collect()
			case <-r.stop:
				return
			}
		}
	}()
	return r
}

// Close stops collecting.
func (r *Reaper) Close() { close(r.stop) }

// Start calls fork under the lock and gives the pid and a channel that will
// carry its status.
func (r *Reaper) Start(fork func() (int, error)) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan syscall.WaitStatus, 1)
	r.waiters[pid] = ch
	return pid, ch, nil
}

// collect takes every status that is there.
func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.all {
		for pid := range r.waiters {
			r.wait(pid)
		}
		return
	}
	for r.wait(-1) {
	}
}

func (r *Reaper) wait(pid int) bool {
	var ws syscall.WaitStatus
	for {
		got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || got <= 0 {
			return false
		}
		if ch, ok := r.waiters[got]; ok {
			delete(r.waiters, got)
			ch <- ws
		}
		return true
	}
}

// Signal signals pid only while it has not been collected, so that a number
// that the kernel has given to another process is never hit.
func (r *Reaper) Signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiters[pid]; !ok {
		return syscall.ESRCH
	}
	return syscall.Kill(pid, sig)
}

// SetSubreaper makes orphans below this process its children.
func SetSubreaper() error {
	const prSetChildSubreaper = 36
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); e != 0 {
		return e
	}
	return nil
}
