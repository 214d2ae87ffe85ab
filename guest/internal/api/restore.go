package api

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/restore"
	"vmsan/guest/internal/wire"
)

// Bounds of a freeze.
const (
	// settle is how long processes may take to stand still.
	settle = 2 * time.Second
	// freezeLimit is how long the guest stays frozen without a word from the host.
	freezeLimit = time.Minute
)

// freeze writes the file systems back and stops the guest's work. Most is written
// while the work still runs, so that it stands still only for the rest.
func (s *Server) freeze(w http.ResponseWriter, r *http.Request) {
	var req struct {
		// Disk also holds the file system: what is on the disk is then complete without the memory.
		Disk bool `json:"disk"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	s.lapse(nil)
	begin := time.Now()
	syscall.Sync()
	synced := time.Now()
	all := s.opts.Host.Freezer.Freeze(settle, freezeLimit)
	syscall.Sync()
	// For a memory that may go on elsewhere; what is only on the disk knows of no shares.
	if !req.Disk {
		if err := s.relay.Hold(); err != nil {
			s.opts.Host.Freezer.Thaw()
			writeError(w, http.StatusInternalServerError,
				wire.Errorf(wire.CodeConfig, "The shared directories could not be held.").Because(err))
			return
		}
	}
	if req.Disk && s.opts.FreezeDisk != nil {
		if err := s.opts.FreezeDisk(true); err != nil {
			s.opts.Host.Freezer.Thaw()
			writeError(w, http.StatusInternalServerError,
				wire.Errorf(wire.CodeConfig, "The VM's file system could not be held.").Because(err))
			return
		}
	}
	// As the work goes on by itself, so does what was held for it.
	s.lapse(time.AfterFunc(freezeLimit, func() { _ = s.letGo() })) // it is tried again with the next freeze
	writeJSON(w, map[string]any{
		"still": all, "syncMs": synced.Sub(begin).Milliseconds(), "frozenMs": time.Since(synced).Milliseconds(),
	})
}

// thaw lets the work go on, after the last correction of the clock.
func (s *Server) thaw(w http.ResponseWriter, r *http.Request) {
	var req struct {
		AdjustNs string `json:"adjustNs"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	// An ordinary process has no clock of its own to set.
	if req.AdjustNs != "" && s.opts.Config.System {
		delta, err := strconv.ParseInt(req.AdjustNs, 10, 64)
		if err != nil {
			writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "adjustNs %.32q is no number.", req.AdjustNs))
			return
		}
		if err := netcfg.AdjustClock(delta); err != nil {
			writeError(w, http.StatusInternalServerError, wire.Errorf(wire.CodeConfig, "The clock could not be set.").Because(err))
			return
		}
	}
	s.lapse(nil)
	if err := s.letGo(); err != nil {
		writeError(w, http.StatusInternalServerError,
			wire.Errorf(wire.CodeConfig, "The VM's file system could not be let go.").Because(err))
		return
	}
	s.opts.Host.Freezer.Thaw()
	w.WriteHeader(http.StatusNoContent)
}

// heard begins the time anew after which what is held goes on by itself.
func (s *Server) heard() {
	s.opts.Host.Freezer.Extend(freezeLimit)
	if timer := s.lapsing.Load(); timer != nil && timer.Stop() {
		timer.Reset(freezeLimit)
	}
}

// lapse sets what happens when the host is not heard of again, and takes back what was set
// before: it would let go of what is held for another time.
func (s *Server) lapse(timer *time.Timer) {
	if before := s.lapsing.Swap(timer); before != nil {
		before.Stop()
	}
}

// letGo lets the file system and the shared directories go on.
func (s *Server) letGo() error {
	if s.opts.FreezeDisk != nil {
		if err := s.opts.FreezeDisk(false); err != nil {
			return err
		}
	}
	if err := s.relay.GoOn(); err != nil {
		fmt.Fprintf(os.Stderr, "vmsan-agent: warning: shared directories: %v\n", err)
	}
	return nil
}

// clock tells the wall clock, nanoseconds since the epoch.
func (s *Server) clock(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"ns": strconv.FormatInt(time.Now().UnixNano(), 10)})
}

// restored does what is left once the guest has its new identity and before its
// work goes on. It gives what went wrong, in sentences.
func (s *Server) restored(c *netcfg.Request) []string {
	token, _ := s.opts.Pin.Get() // whoever asks has it
	if err := s.relay.Move(token); err != nil {
		fmt.Fprintf(os.Stderr, "vmsan-agent: warning: shared directories: %v\n", err)
	}
	if c.Restored != restore.ReasonResume {
		s.opts.Host.ForgetSSH()
		s.streams.Orphan()
	}
	return restore.RunHooks(s.opts.Host.Reaper, s.opts.Host.Cgroups, c.Restored, c.Generation)
}
