package proc

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

// Command describes a process to start.
type Command struct {
	// Program is executed instead of the file that Argv[0] names.
	Program string
	Argv    []string // empty: the user's login shell
	Env     []string // as given by the client, over Base
	Base    []string // the VM's environment
	Workdir string   // "" is / (the home directory for a login shell)
	User    *User
	Term    string
	// Files become descriptors 0, 1 and 2.
	Files [3]*os.File
	// TTY makes descriptor 0 the controlling terminal.
	TTY bool
	// Limits are over those that the agent has.
	Limits []Limit
	// CgroupFD is the directory of its cgroup, or -1.
	CgroupFD int
}

// Process is a started command. It leads a session of its own.
type Process struct {
	Pid    int
	Status <-chan syscall.WaitStatus
}

// HideDescriptors keeps what this process inherited beyond 0, 1 and 2 away from
// the commands that it starts.
func HideDescriptors() {
	const closeRange, cloexec = 436, 4
	// Kernels before 5.11 cannot do it at once; there it is done one by one.
	if _, _, e := syscall.Syscall(closeRange, 3, ^uintptr(0)>>1, cloexec); e == 0 {
		return
	}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// Start runs c as a child that r will collect.
func Start(r *Reaper, c *Command) (*Process, error) {
	u := c.User
	shell := u.Shell
	if shell == "" {
		shell = "/bin/sh"
	}
	defaults := []string{"PATH=" + DefaultPath, "HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name, "SHELL=" + shell}
	if c.TTY {
		term := c.Term
		if term == "" {
			term = "xterm"
		}
		defaults = append(defaults, "TERM="+term)
	}
	env := Environment(defaults, c.Base, c.Env)
	for i, e := range env {
		if e == "HOME=" {
			// As in Docker: an empty one is none.
			env[i] += u.Home
		}
	}
	workdir := c.Workdir
	if workdir == "" {
		workdir = "/"
		if len(c.Argv) == 0 && isDir(u.Home) {
			workdir = u.Home
		}
	}
	if err := checkWorkdir(workdir); err != nil {
		return nil, err
	}
	var file string
	var err error
	argv := c.Argv
	if len(argv) == 0 {
		file, argv, err = LoginShell(u)
	} else if c.Program != "" {
		file = c.Program
	} else {
		file, err = Lookup(argv[0], Getenv(env, "PATH"), workdir)
	}
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Dir: workdir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: c.TTY, Ctty: 0}}
	for _, f := range c.Files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if os.Getuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	if c.CgroupFD >= 0 {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, c.CgroupFD
	}
	if len(c.Limits) > 0 && c.Program == "" {
		file, argv, attr = withLimits(c.Limits, file, argv, attr)
	}
	pid, status, err := fork(r, file, argv, attr)
	if errors.Is(err, syscall.ENOEXEC) && isScript(workdir, file) {
		// No "#!" line: as execvp and every shell do, hand it to sh.
		pid, status, err = fork(r, "/bin/sh", append([]string{"sh", file}, argv[1:]...), attr)
	}
	if err != nil {
		return nil, startError(argv[0], file, err)
	}
	return &Process{Pid: pid, Status: status}, nil
}

func fork(r *Reaper, file string, argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	return r.Start(func() (int, error) { return forkIn(file, argv, attr) })
}

// forkIn is forkExec that enters the directory as the agent where its user may not: as in Docker, a command may run in
// such a directory. forkExec itself enters it as the user, which is tried first, because the other way takes a thread.
func forkIn(file string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	pid, err = forkExec(file, argv, attr)
	if !errors.Is(err, syscall.EACCES) || attr.Sys.Credential == nil || attr.Sys.Credential.Uid == 0 {
		return pid, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread, which has a directory of its own, ends with this.
		runtime.LockOSThread()
		if err = syscall.Unshare(syscall.CLONE_FS); err != nil {
			return
		}
		inside := *attr
		if syscall.Chdir(attr.Dir) == nil {
			inside.Dir = ""
		}
		pid, err = forkExec(file, argv, &inside)
	}()
	<-done
	return pid, err
}

func checkWorkdir(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil && !fi.IsDir() {
		err = syscall.ENOTDIR
	}
	if err == nil && os.Getuid() != 0 {
		const execute = 1
		err = syscall.Access(dir, execute)
	}
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.CodeWorkdir, "The working directory %.256q cannot be used.", dir).Because(err).
		Remedy("Make it in the guest first, or choose another one.")
}

// isScript tells whether a file that the kernel cannot execute looks like text.
func isScript(workdir, file string) bool {
	if !strings.HasPrefix(file, "/") {
		file = workdir + "/" + file
	}
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, 128)
	n, err := f.Read(b)
	if err != nil && n == 0 {
		// An empty executable file is a script that does nothing.
		return true
	}
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	return !strings.ContainsRune(line, 0)
}

// startError translates what fork, chdir, setuid or execve said.
func startError(name, file string, err error) error {
	switch {
	case errors.Is(err, syscall.E2BIG):
		return wire.Errorf(wire.CodeArguments, "The arguments and environment of %.256q are too long.", name).Because(err).
			Remedy("The guest's kernel takes about 2 MiB in all and 128 KiB a string: use standard input or a file.")
	case errors.Is(err, syscall.ENOENT):
		return notExecutable(name, "the interpreter or loader that "+file+" asks for is not in the guest")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.ELIBBAD),
		errors.Is(err, syscall.ETXTBSY), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EISDIR):
		return notExecutable(name, err)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return wire.Errorf(wire.CodeLimit, "The guest cannot start %.256q now.", name).Because(err).
			Remedy("End other processes of the guest or give it more memory.")
	}
	return wire.Errorf(wire.CodeExec, "The guest could not start %.256q.", name).Because(err)
}
