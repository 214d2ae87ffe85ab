package boot

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"unsafe"
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
		if err := loadModule(path); err != nil {
			return fail(CodeModule, err, "the kernel module %s cannot be loaded", path)
		}
	}
	// Their memory is the VM's: the files are not needed any more.
	_ = os.RemoveAll("/modules")
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var none [1]byte
	_, _, e := syscall.Syscall(sysFinitModule, f.Fd(), uintptr(unsafe.Pointer(&none[0])), 0)
	// EEXIST: it is there already. ENODEV: its hardware is not, which disks and
	// channel will show if it matters.
	if e != 0 && e != syscall.EEXIST && e != syscall.ENODEV {
		return e
	}
	return nil
}
