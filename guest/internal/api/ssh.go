package api

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"vmsan/guest/internal/wire"
)

// ssh takes the VM's host key and tells whether the program that the host means is here.
func (s *Server) ssh(w http.ResponseWriter, r *http.Request) {
	var req struct {
		HostKey []byte `json:"hostKey"`
		Program string `json:"program"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	if digest, err := hex.DecodeString(req.Program); err != nil || len(digest) != sha256.Size || len(req.HostKey) != ed25519.SeedSize {
		writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "hostKey is no seed of 32 bytes, or program no SHA-256."))
		return
	}
	writeJSON(w, map[string]bool{"program": s.opts.Host.PrepareSSH(req.HostKey, req.Program)})
}
