package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"vmsan/guest/internal/proc"
)

const (
	// HookDir holds programs that are run, in the order of their names, when the
	// guest comes out of a snapshot.
	HookDir = "/etc/vmsan/restored.d"
	// GenerationFile changes its content whenever the guest comes out of a snapshot.
	GenerationFile = "/run/vmsan/generation"
	// hookLimit bounds all hooks together: the guest's work waits for them.
	hookLimit = 10 * time.Second
)

// Reasons why a guest's memory came from a file.
const (
	ReasonClone   = "clone"
	ReasonRestore = "restore"
	ReasonResume  = "resume"
)

// RunHooks runs the executables of HookDir as root. While they run nothing else
// of the guest does. What is still running at the limit is killed. It gives one
// sentence for each that failed.
func RunHooks(reaper *proc.Reaper, groups *proc.Cgroups, reason, generation string) []string {
	entries, err := os.ReadDir(HookDir)
	if err != nil {
		return nil
	}
	deadline := time.Now().Add(hookLimit)
	var failed []string
	for _, e := range entries {
		path := filepath.Join(HookDir, e.Name())
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if err := runHook(reaper, groups, path, reason, generation, deadline); err != nil {
			failed = append(failed, fmt.Sprintf("The hook %.256s failed: %v.", path, err))
		}
	}
	return failed
}

func runHook(reaper *proc.Reaper, groups *proc.Cgroups, path, reason, generation string, deadline time.Time) error {
	group := groups.HookGroup()
	defer group.Release()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := proc.Start(reaper, &proc.Command{
		Argv: []string{path},
		Env:  []string{"VMSAN_REASON=" + reason, "VMSAN_GENERATION=" + generation},
		User: &proc.User{Name: "root", Home: "/root"},
		// Its output goes where the agent's goes: to the console.
		Files: [3]*os.File{null, os.Stderr, os.Stderr}, CgroupFD: group.FD(),
	})
	if err != nil {
		return err
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case ws := <-p.Status:
		if ws.Signaled() || ws.ExitStatus() != 0 {
			return fmt.Errorf("status %d", ws.ExitStatus())
		}
		return nil
	case <-timer.C:
		proc.SignalTree(group, p.Pid, syscall.SIGKILL)
		return fmt.Errorf("it had not ended within %v", hookLimit)
	}
}
