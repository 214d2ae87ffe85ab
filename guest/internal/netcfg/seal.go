package netcfg

import (
	"errors"
	"syscall"

	"vmsan/guest/internal/wire"
)

// kept are the files that the agent goes on writing below a sealed root, as addresses change.
var kept = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/machine-id"}

// Seal makes the root read-only until the guest is started again. What else is mounted stays as it is,
// and so do the files that the agent keeps: each becomes a mount of its own.
func (c *Config) Seal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.System {
		return wire.Errorf(wire.CodeConfig, "The root is not this agent's.")
	}
	if c.sealed {
		return nil
	}
	for _, path := range kept {
		err := syscall.Mount(path, path, "", syscall.MS_BIND, "")
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
