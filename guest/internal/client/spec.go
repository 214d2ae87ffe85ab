package client

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"os"
	"slices"
	"strings"

	"vmsan/guest/internal/wire"
)

// newID gives 16 random hex digits.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // ends the program rather than fail
	return hex.EncodeToString(b)
}

// SpecOf is what the agent is asked to start: the user's words over the VM's over the image's.
func SpecOf(c *Command, vm *VM, stdin bool) *wire.Spec {
	s := &wire.Spec{
		ID: newID(), Client: newID(), Kind: "exec", Argv: c.Argv, Stdin: stdin, TimeoutMs: c.TimeoutMs,
		User: cmp.Or(wire.Text(c.User), vm.Defaults.User), Workdir: cmp.Or(wire.Text(c.Workdir), vm.Defaults.Workdir),
	}
	var env []string
	if vm.Image != nil {
		s.User = cmp.Or(s.User, vm.Image.Config.User)
		s.Workdir = cmp.Or(s.Workdir, vm.Image.Config.WorkingDir)
		env = vm.Image.Config.Env
	}
	s.Env = mergeEnv(env, vm.Defaults.Env, callersValues(c.Env))
	if c.TTY {
		size := terminalSize()
		term, given := os.LookupEnv("TERM")
		if !given {
			term = "xterm-256color"
		}
		s.TTY = &wire.TTY{Rows: size.Rows, Cols: size.Cols, Term: term}
	}
	return s
}

// callersValues gives names without a value the one that this process has for them; one that it has not stays as
// it is, which takes the variable away from the command.
func callersValues(entries []string) []string {
	given := make([]string, len(entries))
	for i, entry := range entries {
		given[i] = entry
		if value, ok := os.LookupEnv(entry); ok && !strings.Contains(entry, "=") {
			given[i] = entry + "=" + value
		}
	}
	return given
}

// mergeEnv joins lists of KEY=VALUE: a key stays where it was first, with its last value; KEY alone takes it away.
func mergeEnv(lists ...[]string) []string {
	var keys []string
	entries := map[string]string{}
	for _, list := range lists {
		for _, entry := range list {
			key, _, ok := strings.Cut(entry, "=")
			if !ok {
				delete(entries, key)
				keys = slices.DeleteFunc(keys, func(k string) bool { return k == key })
				continue
			}
			if _, known := entries[key]; !known {
				keys = append(keys, key)
			}
			entries[key] = entry
		}
	}
	merged := make([]string, len(keys))
	for i, key := range keys {
		merged[i] = entries[key]
	}
	return merged
}
