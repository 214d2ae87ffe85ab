// Command jailer stands in for Firecracker's jailer in tests: same arguments, same jail, same
// order of steps, same refusals. It does the real thing (namespaces, root directory, user,
// control groups), so that what /proc shows of the result can be tested.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

type options struct {
	id, exec, base, netns, parent string
	uid, gid, cgroupVersion       int
	pidNamespace, daemonize       bool
	cgroups, limits, extra        []string
}

func fail(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	// Printed twice by the real one as well: once by itself, once by its main's result.
	fmt.Fprintf(os.Stderr, "%s\nError: %s\n", message, message)
	os.Exit(1)
}

func check(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

var instanceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func parse(args []string) options {
	o := options{base: "/srv/jailer", cgroupVersion: 1, uid: -1, gid: -1}
	number := func(text, what string) int {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			fail("Invalid %s: %s", what, text)
		}
		return n
	}
	for i := 0; i < len(args); i++ {
		value := func() string {
			if i++; i >= len(args) {
				fail("Failed to parse arguments: The argument '%s' requires a value, but none was supplied.", args[i-1])
			}
			return args[i]
		}
		switch args[i] {
		case "--version":
			fmt.Printf("Jailer v1.16.1\n\n")
			os.Exit(0)
		case "--id":
			o.id = value()
		case "--exec-file":
			o.exec = value()
		case "--uid":
			o.uid = number(value(), "uid")
		case "--gid":
			o.gid = number(value(), "gid")
		case "--chroot-base-dir":
			o.base = value()
		case "--netns":
			o.netns = value()
		case "--parent-cgroup":
			o.parent = value()
		case "--cgroup-version":
			o.cgroupVersion = number(value(), "cgroup version")
		case "--cgroup":
			o.cgroups = append(o.cgroups, value())
		case "--resource-limit":
			o.limits = append(o.limits, value())
		case "--new-pid-ns":
			o.pidNamespace = true
		case "--daemonize":
			o.daemonize = true
		case "--":
			o.extra = args[i+1:]
			i = len(args)
		default:
			fail("Failed to parse arguments: Found argument '%s' which wasn't expected, or isn't valid in this context.", args[i])
		}
	}
	for name, missing := range map[string]bool{"id": o.id == "", "exec-file": o.exec == "", "uid": o.uid < 0, "gid": o.gid < 0} {
		if missing {
			fail("Failed to parse arguments: Argument '%s' required, but not found.", name)
		}
	}
	if !instanceID.MatchString(o.id) {
		fail("Invalid instance ID: %s", o.id)
	}
	if o.daemonize {
		fail("The stand-in does not daemonize.")
	}
	return o
}

// copyExecutable copies the program into the jail; it is owned by the jail's user.
func copyExecutable(from, to string, uid, gid int) {
	in, err := os.Open(from)
	check("Failed to open file "+from, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o755)
	check("Failed to open file "+to, err)
	info, err := out.Stat()
	check("Cannot get metadata", err)
	if info.Sys().(*syscall.Stat_t).Nlink > 1 {
		fail("Detected hard link at: %s", to)
	}
	check("Failed to change owner for "+to, out.Chown(uid, gid))
	_, err = io.Copy(out, in)
	check("Failed to copy", errors.Join(err, out.Close()))
}

// mountOf finds where a control group hierarchy is mounted.
func mountOf(version int, controller string) string {
	data, err := os.ReadFile("/proc/mounts")
	check("Failed to open /proc/mounts", err)
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		if version == 2 && f[2] == "cgroup2" {
			return f[1]
		}
		if version == 1 && f[2] == "cgroup" {
			for _, option := range strings.Split(f[3], ",") {
				if option == controller {
					return f[1]
				}
			}
		}
	}
	fail("Controller %s is unavailable", controller)
	return ""
}

// setCgroups writes the settings and joins the groups.
func setCgroups(o options, execName string) {
	parent := o.parent
	if parent == "" {
		parent = execName
	}
	if strings.HasPrefix(parent, "/") || strings.Contains(parent, "..") {
		fail("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'")
	}
	for _, setting := range o.cgroups {
		file, value, ok := strings.Cut(setting, "=")
		if !ok || value == "" || strings.Contains(value, "=") {
			fail("Invalid format for cgroups: %s", setting)
		}
		if strings.Contains(file, "/") {
			fail("Cgroup invalid file: %s", setting)
		}
		controller, _, _ := strings.Cut(file, ".")
		mount := mountOf(o.cgroupVersion, controller)
		dir := filepath.Join(mount, parent, o.id)
		check("Failed to create directory "+dir, os.MkdirAll(dir, 0o755))
		if o.cgroupVersion == 2 {
			for _, above := range []string{mount, filepath.Join(mount, parent)} {
				path := filepath.Join(above, "cgroup.subtree_control")
				check("Failed to write to "+path, os.WriteFile(path, []byte("+"+controller+"\n"), 0o644))
			}
		}
		path := filepath.Join(dir, file)
		check("Failed to write to "+path, os.WriteFile(path, []byte(value+"\n"), 0o644))
		procs := filepath.Join(dir, "cgroup.procs")
		check("Failed to write to "+procs, os.WriteFile(procs, []byte("0\n"), 0o644))
	}
}

func setLimits(limits []string) {
	// What holds when nothing else is asked for.
	files := syscall.Rlimit{Cur: 2048, Max: 2048}
	check("Failed to set limit for resource", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
	kinds := map[string]int{"fsize": syscall.RLIMIT_FSIZE, "no-file": syscall.RLIMIT_NOFILE}
	for _, limit := range limits {
		name, text, ok := strings.Cut(limit, "=")
		if !ok {
			fail("Invalid format for resources limits: %s", limit)
		}
		kind, known := kinds[name]
		if !known {
			fail("Invalid resource argument: %s", name)
		}
		value, err := strconv.ParseUint(text, 10, 64)
		check("Invalid limit value for resource", err)
		check("Failed to set limit for resource", syscall.Setrlimit(kind, &syscall.Rlimit{Cur: value, Max: value}))
	}
}

// enter makes the directory the root, in a mount namespace of its own.
func enter(root string) {
	check("Failed to unshare into new mount namespace", syscall.Unshare(syscall.CLONE_NEWNS))
	check("Failed to change the propagation type to slave", syscall.Mount("", "/", "", syscall.MS_SLAVE|syscall.MS_REC, ""))
	check("Failed to bind mount the jail root directory", syscall.Mount(root, root, "", syscall.MS_BIND|syscall.MS_REC, ""))
	check("Failed to change current directory", syscall.Chdir(root))
	check("Failed to create the jail root directory before pivoting root", syscall.Mkdir("old_root", 0o600))
	check("Failed to pivot root", syscall.PivotRoot(".", "old_root"))
	check("Failed to chdir into chroot directory", syscall.Chdir("/"))
	check("Failed to unmount the old jail root", syscall.Unmount("old_root", syscall.MNT_DETACH))
	check("Failed to remove old jail root directory", syscall.Rmdir("old_root"))
}

func makeDevice(path string, major, minor, uid, gid int) {
	device := major<<8 | minor&0xff
	check("Failed to create "+path+" via mknod inside the jail", syscall.Mknod(path, syscall.S_IFCHR|0o600, device))
	check("Failed to change owner for "+path, os.Chown(path, uid, gid))
}

func main() {
	// Namespaces and the root directory belong to the thread.
	runtime.LockOSThread()
	o := parse(os.Args[1:])
	os.Clearenv()
	program, err := filepath.EvalSymlinks(o.exec)
	check("Failed to canonicalize path "+o.exec, err)
	info, err := os.Stat(program)
	check("Cannot get metadata", err)
	if !info.Mode().IsRegular() {
		fail("%s is not a file", program)
	}
	base, err := filepath.EvalSymlinks(o.base)
	check("Failed to canonicalize path "+o.base, err)
	name := filepath.Base(program)
	root := filepath.Join(base, name, o.id, "root")
	check("Failed to create directory "+root, os.MkdirAll(root, 0o755))
	copyExecutable(program, filepath.Join(root, name), o.uid, o.gid)
	if o.netns != "" {
		file, err := os.Open(o.netns)
		check("Failed to open file "+o.netns, err)
		const setns = 308 // of x86_64; aarch64 has 268
		number := uintptr(setns)
		if runtime.GOARCH == "arm64" {
			number = 268
		}
		if _, _, errno := syscall.RawSyscall(number, file.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			fail("Failed to join network namespace: netns: %v", errno)
		}
		file.Close()
	}
	setLimits(o.limits)
	setCgroups(o, name)
	enter(root)
	for _, dir := range []string{"/", "/dev", "/dev/net", "/run"} {
		check("Failed to create directory "+dir, os.MkdirAll(dir, 0o700))
		check("Failed to change permissions on "+dir, os.Chmod(dir, 0o700))
		check("Failed to change owner for "+dir, os.Chown(dir, o.uid, o.gid))
	}
	makeDevice("/dev/net/tun", 10, 200, o.uid, o.gid)
	makeDevice("/dev/kvm", 10, 232, o.uid, o.gid)
	makeDevice("/dev/urandom", 1, 9, o.uid, o.gid)
	start(o, "/"+name)
}

// start runs the program as the jail's user, in a new PID namespace if asked for.
func start(o options, program string) {
	argv := append([]string{program, "--id", o.id, "--start-time-us", "1", "--start-time-cpu-us", "1", "--parent-cpu-time-us", "1"}, o.extra...)
	pidFile := program + ".pid"
	save := func(pid int) {
		file, err := os.OpenFile(pidFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		check("Failed to open file "+pidFile, err)
		fmt.Fprint(file, pid)
		file.Close()
	}
	if !o.pidNamespace {
		save(os.Getpid())
		check("Invalid gid", syscall.Setgroups(nil))
		check("Invalid gid", syscall.Setgid(o.gid))
		check("Invalid uid", syscall.Setuid(o.uid))
		check("Failed to exec into Firecracker", syscall.Exec(program, argv, nil))
	}
	pid, err := syscall.ForkExec(program, argv, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID,
			Setsid:     true,
			Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)},
		},
	})
	check("Failed to exec into Firecracker", err)
	save(pid)
	os.Exit(0)
}
