package client

import (
	"regexp"
	"strconv"
)

// RunCommand is what the user asked for: a command in a new VM, which is removed behind it.
type RunCommand struct {
	// Command has the options that both commands have, and no VM.
	Command
	// Image is a reference, or the name of a runtime.
	Image string
	// Memory (MiB) and VCPUs are 0 where nothing was asked for.
	Memory, VCPUs int

	// rm asks for what is done anyway.
	rm bool
}

var (
	// imageName leaves out what names a file or an engine of the host, and standard input.
	imageName = regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?(:[a-zA-Z0-9_][a-zA-Z0-9._-]*)?(@sha256:[0-9a-f]{64})?$`)
	// source is the first word of those that are left out, where they look like references.
	source = regexp.MustCompile(`^(oci|oci-archive|docker-archive|docker-daemon|rootfs):`)
	// count is a plain number; the daemon knows its bounds.
	count = regexp.MustCompile(`^[1-9][0-9]{0,5}$`)
)

// isRegistryImage tells whether a word plainly names an image of a registry, or a runtime.
func isRegistryImage(word string) bool {
	return imageName.MatchString(word) && !source.MatchString(word)
}

// ParseRun reads the words behind `vmsan run`: options, the image, the command. False as with [ParseExec].
func ParseRun(words []string) (*RunCommand, bool) {
	if !areText(words) {
		return nil, false
	}
	c := &RunCommand{}
	rest, ok := options(c, words)
	if !ok || len(rest) == 0 || !isRegistryImage(rest[0]) {
		return nil, false
	}
	c.Image = rest[0]
	c.Argv = withoutSeparator(rest[1:])
	return c, true
}

func (c *RunCommand) flag(name string) *bool {
	switch name {
	case "--rm":
		return &c.rm
	case "--sudo", "--no-extend-timeout":
		return nil
	}
	return c.Command.flag(name)
}

func (c *RunCommand) set(name, value string) bool {
	switch name {
	case "-m", "--memory":
		return take(&c.Memory, value)
	case "--vcpus":
		return take(&c.VCPUs, value)
	}
	return c.Command.set(name, value)
}

func take(to *int, value string) (ok bool) {
	var err error
	*to, err = strconv.Atoi(value)
	return err == nil && count.MatchString(value)
}
