// Package client is the native client of `vmsan exec`: the one command that scripts run so often that the start
// of Node.js is most of what they wait for. It takes the user's words, and gives the command's outputs and
// status. Whatever it does not plainly understand, or is refused before anything was done, it hands over to the
// command line in TypeScript, which knows all of it and has the words for it.
package client

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Command is what the user asked for.
type Command struct {
	// VM is an ID or a name.
	VM   string
	Argv []string
	// Env holds KEY=VALUE.
	Env           []string
	Workdir, User string
	// TimeoutMs is 0 without a limit.
	TimeoutMs int64
	// TTY asks for a terminal in the guest, Interactive for the input although it is one here.
	TTY, Interactive bool
}

var (
	vmRef    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	duration = regexp.MustCompile(`^[0-9]{1,6}[hms]$`)
)

var unitMs = map[byte]int64{'h': 3_600_000, 'm': 60_000, 's': 1000}

// maxTimeoutMs is the bound of the command line's durations.
const maxTimeoutMs = 1<<31 - 1

// ParseExec reads the words behind `vmsan exec`. False for everything that is not plain: wrong words, other
// spellings of right ones, options that only the other client has.
func ParseExec(words []string) (*Command, bool) {
	c := &Command{}
	sudo := false
	i := 0
	for ; i < len(words) && strings.HasPrefix(words[i], "-"); i++ {
		name, value, given := strings.Cut(words[i], "=")
		if flag := c.flag(name, &sudo); flag != nil {
			if given {
				return nil, false
			}
			*flag = true
			continue
		}
		if given && !strings.HasPrefix(name, "--") {
			return nil, false
		}
		if !given {
			if i++; i == len(words) {
				return nil, false
			}
			value = words[i]
		}
		if !c.set(name, value) {
			return nil, false
		}
	}
	if i == len(words) || !vmRef.MatchString(words[i]) {
		return nil, false
	}
	c.VM, c.Argv = words[i], words[i+1:]
	if len(c.Argv) > 0 && c.Argv[0] == "--" {
		c.Argv = c.Argv[1:]
	} else if len(c.Argv) > 0 && strings.HasPrefix(c.Argv[0], "-") {
		return nil, false
	}
	for _, word := range words {
		if !utf8.ValidString(word) {
			return nil, false
		}
	}
	if sudo && c.User == "" {
		c.User = "root"
	}
	return c, len(c.Argv) > 0
}

// flag gives where an option without a value goes.
func (c *Command) flag(name string, sudo *bool) *bool {
	switch name {
	case "--sudo":
		return sudo
	case "-t", "--tty":
		return &c.TTY
	case "-i", "--interactive":
		return &c.Interactive
	}
	return nil
}

// set takes an option with a value.
func (c *Command) set(name, value string) bool {
	switch name {
	case "-e", "--env":
		c.Env = append(c.Env, value)
		return strings.IndexByte(value, '=') > 0
	case "-w", "--workdir":
		c.Workdir = value
		return value != ""
	case "-u", "--user":
		c.User = value
		return value != ""
	case "--timeout":
		if !duration.MatchString(value) {
			return false
		}
		last := len(value) - 1
		count, err := strconv.ParseInt(value[:last], 10, 64)
		c.TimeoutMs = count * unitMs[value[last]]
		return err == nil && c.TimeoutMs > 0 && c.TimeoutMs <= maxTimeoutMs
	}
	return false
}
