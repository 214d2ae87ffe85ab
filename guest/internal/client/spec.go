package client

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"

	"vmsan/guest/internal/wire"
)

// newID gives 16 random hex digits.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // ends the program rather than fail
	return hex.EncodeToString(b)
}

// SpecOf is what the agent is asked to start: the user's words over the VM's over the image's. False for an
// image whose environment has entries that are not KEY=VALUE.
func SpecOf(c *Command, vm *VM, stdin bool) (*wire.Spec, bool) {
	s := &wire.Spec{
		ID: newID(), Client: newID(), Kind: "exec", Argv: c.Argv, Stdin: stdin, TimeoutMs: c.TimeoutMs,
		User: first(c.User, vm.Defaults.User), Workdir: first(c.Workdir, vm.Defaults.Workdir),
	}
	var env []string
	if vm.Image != nil {
		s.User = first(s.User, vm.Image.Config.User)
		s.Workdir = first(s.Workdir, vm.Image.Config.WorkingDir)
		env = vm.Image.Config.Env
	}
	var ok bool
	if s.Env, ok = mergeEnv(env, vm.Defaults.Env, c.Env); !ok {
		return nil, false
	}
	if c.TTY {
		size := terminalSize()
		term, given := os.LookupEnv("TERM")
		if !given {
			term = "xterm-256color"
		}
		s.TTY = &wire.TTY{Rows: size.Rows, Cols: size.Cols, Term: term}
	}
	return s, true
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// mergeEnv joins lists of KEY=VALUE: a key stays where it was first, with its last value.
func mergeEnv(lists ...[]string) ([]string, bool) {
	merged := []string{}
	at := map[string]int{}
	for _, list := range lists {
		for _, entry := range list {
			key, _, ok := strings.Cut(entry, "=")
			if !ok {
				return nil, false
			}
			if i, known := at[key]; known {
				merged[i] = entry
				continue
			}
			at[key] = len(merged)
			merged = append(merged, entry)
		}
	}
	return merged, true
}
