package proc

import (
	"os/exec"
	"slices"
	"testing"
)

func TestParseStat(t *testing.T) {
	line := "42 (a) b) S 7 42 42 34816 42 4194304 1 0 0 0 150 50 0 0 20 0 1 0 300 8192 2 0 0\n"
	p, flags, ok := parseStat(line)
	if !ok || flags != 4194304 {
		t.Fatalf("%v %v", ok, flags)
	}
	if p.PID != 42 || p.PPID != 7 || p.TTY != "pts/0" || p.CPUMs != 2000 || p.StartMs != 3000 || p.SizeKib != 8 || p.Args[0] != "[a) b]" {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 (a) S 7", "x (a) S 7 42 42 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"} {
		if _, _, ok := parseStat(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestList(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	// Between fork and exec it is this program still, which is left out.
	for {
		for _, p := range List() {
			if p.PID == c.Process.Pid && slices.Equal(p.Args, []string{"sleep", "60"}) {
				return
			}
		}
	}
}
