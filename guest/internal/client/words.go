// Package client is the native client of `vmsan exec`, `vmsan run` and `vmsan image pull`: commands that scripts run so often
// that the start of Node.js is much of what they wait for. It takes the user's words, and gives the command's outputs
// and status. Whatever it does not plainly understand, or is refused before anything was done, it hands over to the
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
	// Env holds KEY=VALUE, and KEY for the caller's value.
	Env           []string
	Workdir, User string
	// TimeoutMs is 0 without a limit.
	TimeoutMs int64
	// TTY asks for a terminal in the guest, Interactive for the input although it is one here; both renew a VM's
	// time limit unless NoExtend.
	TTY, Interactive, NoExtend bool

	sudo bool
}

var (
	vmRef     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	timeLimit = regexp.MustCompile(`^[0-9]{1,6}[hms]$`)
)

var unitMs = map[byte]int64{'h': 3_600_000, 'm': 60_000, 's': 1000}

// maxTimeoutMs is the bound of the command line's durations.
const maxTimeoutMs = 1<<31 - 1

// ParseExec reads the words behind `vmsan exec`: options, the VM, options, the command. False for everything that
// is not plain: wrong words, other spellings of right ones, options that only the other client has.
func ParseExec(words []string) (*Command, bool) {
	if !areText(words) {
		return nil, false
	}
	c := &Command{}
	rest, ok := options(c, words)
	if !ok || len(rest) == 0 || !vmRef.MatchString(rest[0]) {
		return nil, false
	}
	c.VM = rest[0]
	if rest, ok = options(c, rest[1:]); !ok {
		return nil, false
	}
	c.Argv = withoutSeparator(rest)
	if c.sudo && c.User == "" {
		c.User = "root"
	}
	return c, len(c.Argv) > 0
}

// areText tells whether all words are UTF-8.
func areText(words []string) bool {
	for _, word := range words {
		if !utf8.ValidString(word) {
			return false
		}
	}
	return true
}

// withoutSeparator is the command behind an optional `--`.
func withoutSeparator(words []string) []string {
	if len(words) > 0 && words[0] == "--" {
		return words[1:]
	}
	return words
}

// taker takes the options of one command.
type taker interface {
	// flag gives where an option without a value goes; nil for others.
	flag(name string) *bool
	// set takes an option with a value.
	set(name, value string) bool
}

// options reads options up to the first word that is none, and gives the words from there.
func options(c taker, words []string) ([]string, bool) {
	for len(words) > 0 && len(words[0]) > 1 && words[0][0] == '-' && words[0] != "--" {
		name, value, given := strings.Cut(words[0], "=")
		words = words[1:]
		if flag := c.flag(name); flag != nil {
			if given {
				return nil, false
			}
			*flag = true
			continue
		}
		if !given {
			if len(words) == 0 {
				return nil, false
			}
			value, words = words[0], words[1:]
		}
		if !c.set(name, value) {
			return nil, false
		}
	}
	return words, true
}

func (c *Command) flag(name string) *bool {
	switch name {
	case "--sudo":
		return &c.sudo
	case "--no-extend-timeout":
		return &c.NoExtend
	case "-t", "--tty":
		return &c.TTY
	case "-i", "--interactive":
		return &c.Interactive
	}
	return nil
}

func (c *Command) set(name, value string) bool {
	switch name {
	case "-e", "--env":
		c.Env = append(c.Env, value)
		return value != "" && value[0] != '='
	case "-w", "--workdir":
		c.Workdir = value
		return value != ""
	case "-u", "--user":
		c.User = value
		return value != ""
	case "--timeout":
		if !timeLimit.MatchString(value) {
			return false
		}
		last := len(value) - 1
		count, err := strconv.ParseInt(value[:last], 10, 64)
		c.TimeoutMs = count * unitMs[value[last]]
		return err == nil && c.TimeoutMs > 0 && c.TimeoutMs <= maxTimeoutMs
	}
	return false
}
