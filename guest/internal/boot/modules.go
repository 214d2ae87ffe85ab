package boot

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"vmsan/guest/internal/modules"
)

// loadModules loads the modules that list names, one absolute path a line, in
// order. No list: the kernel has everything built in.
func loadModules(list string) error {
	b, err := os.ReadFile(list)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fail(CodeModule, err, "the list of modules cannot be read")
	}
	for _, line := range strings.Split(string(b), "\n") {
		path := strings.TrimSpace(line)
		if path == "" || path[0] == '#' {
			continue
		}
		// ENODEV: its hardware is not there, which disks and channel will show if it matters.
		if err := modules.Insert(path, ""); err != nil && !errors.Is(err, syscall.ENODEV) {
			return fail(CodeModule, err, "the kernel module %s cannot be loaded", path)
		}
	}
	// Their memory is the VM's: the files are not needed any more.
	_ = os.RemoveAll("/modules")
	return nil
}
