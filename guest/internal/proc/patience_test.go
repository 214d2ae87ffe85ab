package proc

import (
	"io"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// output is what a command prints, started as a user in a directory.
func output(t *testing.T, r *Reaper, user *User, dir string, argv ...string) string {
	t.Helper()
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := Start(r, &Command{
		Argv: argv, Workdir: dir, User: user, Files: [3]*os.File{null, theirs, theirs}, CgroupFD: -1,
	})
	_ = theirs.Close() // nothing is buffered in it
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(out)
	if ws := <-p.Status; err != nil || ws.ExitStatus() != 0 {
		t.Errorf("%q: %v, status %d: %s", argv, err, ws.ExitStatus(), said)
	}
	return strings.TrimSpace(string(said))
}

// slackOf is the slack of this process's thread tid, in nanoseconds.
func slackOf(t *testing.T, tid string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + tid + "/timerslack_ns")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// usual is what this process was started with.
var usual, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prGetTimerSlack, 0, 0)

func TestTimersAreLateButNotThoseOfCommands(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root sees the slack of other threads")
	}
	r := NewReaper(false)
	defer r.Close()
	late := func() {
		t.Helper()
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil || len(threads) < 2 {
			t.Fatal(threads, err)
		}
		for _, thread := range threads {
			if s := slackOf(t, thread.Name()); s != "4000000" {
				t.Errorf("thread %s has a slack of %s ns", thread.Name(), s)
			}
		}
	}
	BePatient()
	late()
	for range 10 {
		if s := output(t, r, &User{Home: "/"}, "/", "cat", "/proc/self/timerslack_ns"); s != strconv.Itoa(int(usual)) {
			t.Errorf("a command has a slack of %s ns instead of %d", s, usual)
		}
	}
	late()
}

func TestDirectoriesThatTheUserMayNotEnter(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root starts commands as another user")
	}
	r := NewReaper(false)
	defer r.Close()
	nobody := &User{Name: "nobody", UID: 65534, GID: 65534, Home: "/"}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if dir := output(t, r, nobody, closed, "readlink", "/proc/self/cwd"); dir != closed {
		t.Errorf("a command runs in %q instead of %q", dir, closed)
	}
	_, err := Start(r, &Command{Argv: []string{"/etc/passwd"}, User: nobody, Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, CgroupFD: -1})
	if err == nil || !strings.Contains(err.Error(), syscall.EACCES.Error()) {
		t.Errorf("a file that is no program: %v", err)
	}
	const commands = 30
	threads := pprof.Lookup("threadcreate")
	before := threads.Count()
	for range commands {
		output(t, r, nobody, "/", "true")
	}
	if made := threads.Count() - before; made > commands/2 {
		t.Errorf("%d commands took %d threads", commands, made)
	}
}
