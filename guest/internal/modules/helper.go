// Package modules loads kernel modules on demand: the agent is the kernel's
// module helper (/proc/sys/kernel/modprobe), so that opening /dev/net/tun or
// making a bridge works in images that have no kmod of their own.
package modules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// Sysctl is where the kernel is told which program loads modules.
const Sysctl = "/proc/sys/kernel/modprobe"

// IsRequest tells whether these are the arguments that the kernel gives its helper.
func IsRequest(args []string) bool {
	return len(args) == 4 && args[1] == "-q" && args[2] == "--"
}

// Dir is where the running kernel's modules lie.
func Dir() (string, error) {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		return "", err
	}
	release := make([]byte, 0, len(name.Release))
	for _, c := range name.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	return filepath.Join("/lib/modules", string(release)), nil
}

// Help serves one request of the kernel, for a module's name or an alias. It
// says on the kernel's log why a module that is there could not be loaded.
func Help(wanted string) error {
	dir, err := Dir()
	if err != nil {
		return err
	}
	err = loadWanted(dir, wanted)
	if err != nil && !errors.Is(err, errUnknown) {
		line := fmt.Sprintf("<4>vmsan-agent: module %.100q: %v\n", wanted, err)
		_ = os.WriteFile("/dev/kmsg", []byte(line), 0) // nobody else to tell
	}
	return err
}

// errUnknown: no module serves the request, which is an everyday answer.
var errUnknown = errors.New("there is no such module")

func loadWanted(dir, wanted string) error {
	cmdline, _ := os.ReadFile("/proc/cmdline") // without it there are no options in it
	rules, err := readRules(ruleDirs, string(cmdline))
	if err != nil {
		return err
	}
	l := &loader{dir: dir, rules: rules, load: Insert, loaded: isLoaded, busy: map[string]bool{}}
	return l.serve(wanted)
}

// loader loads modules of one directory.
type loader struct {
	dir   string
	rules rules
	// paths: module name → its file and those of what it needs, the deepest last.
	paths  map[string][]string
	soft   map[string]softDeps
	load   func(path, options string) error
	loaded func(name string) bool
	busy   map[string]bool
}

// serve loads what a name or alias stands for. That may be several modules
// (drivers of one device): all are loaded, and one that works is enough.
func (l *loader) serve(wanted string) error {
	var err error
	if l.paths, err = readDependencies(filepath.Join(l.dir, "modules.dep")); err != nil {
		return err
	}
	if l.soft, err = readSoft(filepath.Join(l.dir, "modules.softdep"), l.rules.soft); err != nil {
		return err
	}
	names, err := l.resolve(normalize(wanted))
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errUnknown
	}
	var failed []error
	for _, name := range names {
		if err := l.withSoft(name); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == len(names) {
		return errors.Join(failed...)
	}
	return nil
}

// resolve finds the modules that a name or alias stands for.
func (l *loader) resolve(wanted string) ([]string, error) {
	if _, ok := l.paths[wanted]; ok {
		return []string{wanted}, nil
	}
	names := l.rules.match(wanted)
	if len(names) == 0 {
		var err error
		if names, err = matchAliases(filepath.Join(l.dir, "modules.alias"), wanted); err != nil {
			return nil, err
		}
	}
	var good []string
	for _, name := range names {
		if _, ok := l.paths[name]; ok && !l.rules.blacklist[name] {
			good = append(good, name)
		}
	}
	return good, nil
}

// withSoft loads a module with what is wanted before and after it where it is there.
func (l *loader) withSoft(name string) error {
	if l.busy[name] || l.loaded(name) {
		return nil
	}
	l.busy[name] = true
	soft := l.soft[name]
	for _, other := range soft.pre {
		l.soften(other)
	}
	if err := l.withNeeds(name); err != nil {
		return err
	}
	for _, other := range soft.post {
		l.soften(other)
	}
	return nil
}

func (l *loader) soften(wanted string) {
	names, err := l.resolve(normalize(wanted))
	if err != nil {
		return
	}
	for _, name := range names {
		_ = l.withSoft(name) // "soft": the module itself says what it cannot do without
	}
}

// withNeeds loads a module after the modules that it needs, and their soft ones.
func (l *loader) withNeeds(name string) error {
	paths := l.paths[name]
	for i := len(paths) - 1; i >= 0; i-- {
		each := nameOf(paths[i])
		if l.loaded(each) {
			continue
		}
		if !l.busy[each] {
			l.busy[each] = true
			for _, other := range l.soft[each].pre {
				l.soften(other)
			}
		}
		if l.rules.refused[each] {
			return fmt.Errorf("%s is not to be loaded (install or blacklist in modprobe.d)", each)
		}
		if err := l.load(filepath.Join(l.dir, paths[i]), strings.Join(l.rules.options[each], " ")); err != nil {
			return fmt.Errorf("%s: %w", paths[i], err)
		}
	}
	return nil
}

// nameOf is the module's name of a file: kernel/fs/x-y.ko.xz is x_y.
func nameOf(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// isLoaded: the kernel shows the modules that it has, also those built in, which
// have no state.
func isLoaded(name string) bool {
	dir := "/sys/module/" + name
	if state, err := os.ReadFile(dir + "/initstate"); err == nil {
		return strings.TrimSpace(string(state)) == "live"
	}
	_, err := os.Stat(dir)
	return err == nil
}

// compressed tells the kernel to unpack the file itself (Linux 5.17).
const compressed = 4

// Insert loads one module's file. One that is there already is no error.
func Insert(path, options string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = compressed
	}
	text, err := syscall.BytePtrFromString(options)
	if err != nil {
		return err
	}
	_, _, e := syscall.Syscall(sysFinitModule, f.Fd(), uintptr(unsafe.Pointer(text)), uintptr(flags))
	// EEXIST: another request was faster.
	if e != 0 && e != syscall.EEXIST {
		return e
	}
	return nil
}
