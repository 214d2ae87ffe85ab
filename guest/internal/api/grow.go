package api

import (
	"net/http"
	"os"

	"vmsan/guest/internal/blockdev"
	"vmsan/guest/internal/wire"
)

// grow makes a mounted file system as large as its disk has become.
func (s *Server) grow(w http.ResponseWriter, r *http.Request) {
	var req struct {
		// Target is where a volume is mounted; "" for the VM's own disk.
		Target string `json:"target"`
		// SizeBytes is how large the disk is by now, at least; the guest may learn of it a little later.
		SizeBytes int64 `json:"sizeBytes"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	root := s.opts.Disk
	if req.Target != "" {
		f, err := os.Open(req.Target)
		if err != nil {
			writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "%.256q is no place of a volume.", req.Target).Because(err))
			return
		}
		defer f.Close()
		root = f
	}
	if root == nil {
		writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "The agent has no disk of its own here."))
		return
	}
	if err := blockdev.Grow(root, req.SizeBytes); err != nil {
		writeError(w, http.StatusInternalServerError,
			wire.Errorf(wire.CodeConfig, "The file system could not be made larger.").Because(err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
