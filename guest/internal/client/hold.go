package client

import (
	"errors"
	"io"
	"sync"
	"time"

	"vmsan/guest/internal/wire"
)

const (
	// holdWait is between two tries to hold a VM again, holdPatience how long those go on: the next daemon
	// removes what nobody claims.
	holdWait     = 100 * time.Millisecond
	holdPatience = 10 * time.Second
)

// hold keeps an ephemeral VM: by the connection that made it, by another one when that breaks.
type hold struct {
	d            *Daemon
	id, launcher string

	mu       sync.Mutex
	conn     *Conn
	released bool
}

// keep holds the VM until released.
func (h *hold) keep() {
	for {
		h.mu.Lock()
		conn := h.conn
		h.mu.Unlock()
		// Nothing more is said on it: its end is what counts.
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		if !h.takeAgain() {
			return
		}
	}
}

// takeAgain claims the VM from the next daemon. False when it is released, or gone.
func (h *hold) takeAgain() bool {
	for until := time.Now().Add(holdPatience); time.Now().Before(until); time.Sleep(holdWait) {
		h.mu.Lock()
		released := h.released
		h.mu.Unlock()
		if released {
			return false
		}
		conn, err := h.take()
		var info *wire.ErrorInfo
		switch {
		case err == nil:
			h.mu.Lock()
			h.conn = conn
			h.mu.Unlock()
			return true
		case errors.As(err, &info) && info.Code == "ERR_VM_NOT_FOUND":
			// Whoever uses it meets that error where it matters.
			return false
		case NotListening(err) || isOtherVersion(err):
			// Fails where the session's own start of one does, which says why.
			_ = startDaemon(h.launcher)
		}
	}
	return false
}

func (h *hold) take() (*Conn, error) {
	conn, err := h.d.Dial()
	if err != nil {
		return nil, err
	}
	if err = conn.stream("GET", "/v1/vms/"+h.id+"/hold", nil); err == nil {
		_, err = conn.lines(func(line) {})
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// release lets go of the VM; this process's end does so too.
func (h *hold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	_ = h.conn.Close()
}
