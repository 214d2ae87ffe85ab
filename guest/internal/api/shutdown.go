package api

import (
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	"vmsan/guest/internal/proc"
)

// maxGrace bounds the time that processes get between TERM and KILL: the host asks for an hour at most.
const maxGrace = time.Hour

// shutdown answers at once and ends everything behind the answer.
func (s *Server) shutdown(w http.ResponseWriter, r *http.Request) {
	var req struct {
		GraceMs int64 `json:"graceMs"`
		Reboot  bool  `json:"reboot"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	grace := min(max(time.Duration(req.GraceMs)*time.Millisecond, 0), maxGrace)
	first := s.shuttingDown.CompareAndSwap(false, true)
	w.WriteHeader(http.StatusAccepted)
	// Flushed so that the host has the answer before the channel goes.
	_ = http.NewResponseController(w).Flush()
	if first {
		go s.Shutdown(grace, req.Reboot)
	}
}

// Shutdown ends the guest: TERM to all, the grace time, KILL, then the power.
func (s *Server) Shutdown(grace time.Duration, reboot bool) {
	s.streams.Close()
	// What stands still acts on no signal.
	s.opts.Host.Freezer.Thaw()
	if s.opts.OwnInit != nil {
		// Its services are ended by itself, in its order; the power is its too.
		s.opts.OwnInit(reboot)
		time.Sleep(max(grace, 100*time.Millisecond))
		s.relay.Close()
		s.opts.PowerOff(reboot)
		return
	}
	deadline := time.Now().Add(grace)
	if grace > 0 {
		s.killAll(syscall.SIGTERM)
		for s.anybody() && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	for range 50 {
		if !s.anybody() {
			break
		}
		s.killAll(syscall.SIGKILL)
		time.Sleep(10 * time.Millisecond)
	}
	// Work that is no process.
	for _, st := range s.streams.List() {
		select {
		case <-st.Done():
		default:
			_ = st.Signal(syscall.SIGTERM, true) // it may just have ended
		}
	}
	s.relay.Close()
	// Let clients see the last EXIT frames.
	time.Sleep(20 * time.Millisecond)
	s.opts.PowerOff(reboot)
}

func (s *Server) anybody() bool { return len(s.everybody()) > 0 }

// everybody lists who is to be ended: not the relay, which others need to the last.
func (s *Server) everybody() []int {
	all := proc.Descendants()
	if s.opts.Everybody {
		all = proc.UserProcesses()
	}
	relay := s.relay.PID()
	return slices.DeleteFunc(all, func(pid int) bool { return pid == relay })
}

func (s *Server) killAll(sig syscall.Signal) {
	for _, p := range s.everybody() {
		if p == os.Getpid() {
			continue
		}
		// ESRCH: it has ended.
		_ = syscall.Kill(p, sig)
		if sig == syscall.SIGTERM {
			_ = syscall.Kill(p, syscall.SIGCONT) // as above; a stopped process acts on nothing else
		}
	}
}
