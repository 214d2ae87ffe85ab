package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"vmsan/guest/internal/blockdev"
	"vmsan/guest/internal/modules"
	"vmsan/guest/internal/netcfg"
)

// warn says on the console what a guest has to do without.
func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vmsan-agent: warning: "+format+"\n", args...)
}

// openModules mounts the disk of modules, if there is one, where only the agent
// sees it, and holds the directory of the running kernel's.
func (m *Machine) openModules() {
	for _, disk := range blockdev.Names() {
		if blockdev.Label(disk) != blockdev.ModulesLabel {
			continue
		}
		const flags = syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV
		if err := mountExt4(disk, "/lib/modules", flags); err != nil {
			warn("%v", err)
			return
		}
		dir, err := modules.Dir()
		if err != nil {
			warn("the kernel's release: %v", err)
			return
		}
		if m.modules, err = os.Open(dir); err != nil {
			warn("the disk has no modules of this kernel: %v", err)
		}
		return
	}
}

// furnishModules shows the modules where programs look for them, unless the
// image has its own, makes the device nodes that load one when they are opened,
// and becomes the kernel's module helper.
func (m *Machine) furnishModules() {
	dir, err := modules.Dir()
	if err != nil {
		return
	}
	if m.modules != nil {
		if own, err := os.ReadDir(dir); err != nil || len(own) == 0 {
			err := netcfg.MakeDirectory(dir)
			if err == nil {
				err = syscall.Mount(fmt.Sprintf("/proc/self/fd/%d", m.modules.Fd()), dir, "", syscall.MS_BIND, "")
			}
			if err != nil {
				warn("%s cannot be mounted: %v", dir, err)
			}
		}
		_ = m.modules.Close() // only looked at
	}
	makeNodes(filepath.Join(dir, "modules.devname"))
	if _, err := os.Stat(filepath.Join(dir, "modules.dep")); err == nil {
		m.helps = true
		helpFrom(os.Getpid())
	}
}

// helpFrom makes the program of a process that stays the kernel's module helper.
// Kernels without modules have no such setting.
func helpFrom(pid int) {
	_ = os.WriteFile(modules.Sysctl, []byte("/proc/"+strconv.Itoa(pid)+"/exe"), 0)
}

// nodeModes: what device managers give these nodes; all others are root's alone.
var nodeModes = map[string]os.FileMode{
	"fuse": 0o666, "net/tun": 0o666, "kvm": 0o666, "vhost-net": 0o666, "vhost-vsock": 0o666,
	"null": 0o666, "zero": 0o666, "full": 0o666, "random": 0o666, "urandom": 0o666, "tty": 0o666,
	"ptmx": 0o666, "kmsg": 0o644,
}

// parseNode reads a line of modules.devname: module, node, and "c" or "b" with the numbers.
func parseNode(line string) (node string, kind byte, major, minor uint32, ok bool) {
	words := strings.Fields(line)
	if len(words) != 3 || !filepath.IsLocal(words[1]) {
		return "", 0, 0, 0, false
	}
	kind = words[2][0]
	high, low, _ := strings.Cut(words[2][1:], ":")
	of, errOf := strconv.ParseUint(high, 10, 32)
	number, errNumber := strconv.ParseUint(low, 10, 32)
	ok = (kind == 'c' || kind == 'b') && errOf == nil && errNumber == nil
	return words[1], kind, uint32(of), uint32(number), ok
}

// makeNodes makes the nodes of modules that are loaded when one is opened
// (modules.devname: `module node c10:200`) and gives those that are there the usual modes.
func makeNodes(list string) {
	text, err := os.ReadFile(list)
	if err != nil {
		text = nil // a kernel without modules: there are none to be made
	}
	for _, line := range strings.Split(string(text), "\n") {
		node, kind, major, minor, ok := parseNode(line)
		if !ok {
			continue
		}
		mode := uint32(syscall.S_IFCHR | 0o600)
		if kind == 'b' {
			mode = syscall.S_IFBLK | 0o600
		}
		path := filepath.Join("/dev", node)
		_ = os.MkdirAll(filepath.Dir(path), 0o755) // mknod says so
		err := syscall.Mknod(path, mode, int(major&0xfff)<<8|int(minor&0xff)|int(minor&^0xff)<<12)
		if err != nil && err != syscall.EEXIST {
			warn("%s cannot be made: %v", path, err)
		}
	}
	for node, mode := range nodeModes {
		_ = os.Chmod("/dev/"+node, mode) // not every kernel has every one
	}
}
