package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// ending is how a program ended and what it printed.
type ending struct {
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// tail keeps the last bytes of what is written to it.
type tail struct {
	kept  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > t.limit {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.ToValidUTF8(string(t.kept[max(0, len(t.kept)-t.limit):]), "?")
}

// runIn runs a program to its end in a network namespace, or where this one is when netns is
// empty. The daemon could start it itself, but stands still while it does: until the kernel has copied
// what it knows of the daemon's memory, and found a processor for the child.
func runIn(netns string, argv []string, input string, timeoutMs int64) (*ending, error) {
	if len(argv) == 0 {
		return nil, errors.New("no program")
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Duration(timeoutMs)*time.Millisecond)
	defer cancel()
	command := exec.CommandContext(limit, argv[0], argv[1:]...)
	command.Stdin = strings.NewReader(input)
	// By this the daemon sees, should this process end before it, when the program has ended.
	command.ExtraFiles = []*os.File{os.Stderr}
	// What it may have started keeps its output open no longer than this.
	command.WaitDelay = 2 * time.Second
	stdout, stderr := &tail{limit: 1 << 20}, &tail{limit: 64 << 10}
	command.Stdout, command.Stderr = stdout, stderr
	start := command.Start
	if netns != "" {
		// A child begins in the namespace of the thread that starts it.
		start = func() error { return inNetns(netns, command.Start) }
	}
	if err := start(); err != nil {
		return nil, err
	}
	// Its state tells: input that it did not read, and a status that is not 0, are its own affair.
	if err := command.Wait(); command.ProcessState == nil {
		return nil, err
	}
	state := command.ProcessState
	result := &ending{Code: state.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.Signal = status.Signal().String()
	}
	return result, nil
}
