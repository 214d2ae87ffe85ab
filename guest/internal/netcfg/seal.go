package netcfg

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

// kept are the files that the agent goes on writing below a sealed root, as addresses change.
var kept = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/machine-id"}

// maxPlaces is how many places a caller may keep writable.
const maxPlaces = 1024

// Seal makes the root read-only until the guest is started again. What else is mounted stays as it is,
// and so do the files that the agent keeps and the places named: each becomes a mount of its own, with
// what is mounted below it.
func (c *Config) Seal(places []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.System {
		return wire.Errorf(wire.CodeConfig, "The root is not this agent's.")
	}
	if len(places) > maxPlaces {
		return bad("At most %d places are kept.", maxPlaces)
	}
	for _, path := range places {
		if !strings.HasPrefix(path, "/") || len(path) > maxPath || strings.ContainsRune(path, 0) || filepath.Clean(path) == "/" {
			return bad("%.128q is no place below the root.", path)
		}
	}
	if c.sealed {
		return nil
	}
	for _, path := range append(places, kept...) {
		err := syscall.Mount(path, path, "", syscall.MS_BIND|syscall.MS_REC, "")
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return wire.Errorf(wire.CodeMount, "%s cannot be kept apart.", path).Because(err)
		}
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		return wire.Errorf(wire.CodeMount, "The root cannot be made read-only.").Because(err)
	}
	c.sealed = true
	return nil
}
