package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"vmsan/guest/internal/wire"
)

// LimitsMode is this program's first argument where it gives itself limits and becomes a command: Go's fork knows
// of none, and the agent's own are not for commands.
const LimitsMode = "limits"

// Limit is one of setrlimit(2); -1 is none.
type Limit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// resources by their names for ulimit; the numbers are those of amd64 and arm64.
var resources = map[string]int{
	"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8,
	"as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}

// CheckLimits tells what is wrong with limits.
func CheckLimits(limits []Limit) error {
	for _, l := range limits {
		_, known := resources[l.Name]
		if !known || l.Soft < -1 || l.Hard < -1 || uint64(l.Soft) > uint64(l.Hard) {
			return wire.Errorf(wire.CodeRequest, "There is no limit %.32q from %d to %d.", l.Name, l.Soft, l.Hard)
		}
	}
	return nil
}

// limited is what the helper is told besides the program and its arguments.
type limited struct {
	Limits []Limit
	User   *syscall.Credential
}

// withLimits makes file and argv those of the helper, which becomes them.
func withLimits(limits []Limit, file string, argv []string, attr *syscall.ProcAttr) (string, []string, *syscall.ProcAttr) {
	order := limited{limits, attr.Sys.Credential}
	sys := *attr.Sys
	sys.Credential = nil
	own := *attr
	own.Sys = &sys
	return "/proc/self/exe", append([]string{"@vmsan-agent", LimitsMode, string(wire.JSON(order)), file}, argv...), &own
}

// RunLimited is the helper: args are what withLimits gave, from the order on. It returns with an error alone.
func RunLimited(args []string) error {
	var order limited
	if len(args) < 3 {
		return errors.New("no command to run")
	}
	if err := json.Unmarshal([]byte(args[0]), &order); err != nil {
		return err
	}
	for _, l := range order.Limits {
		err := syscall.Setrlimit(resources[l.Name], &syscall.Rlimit{Cur: uint64(l.Soft), Max: uint64(l.Hard)})
		if err != nil {
			return fmt.Errorf("the limit %s cannot be from %d to %d: %w", l.Name, l.Soft, l.Hard, err)
		}
	}
	if u := order.User; u != nil {
		groups := make([]int, len(u.Groups))
		for i, g := range u.Groups {
			groups[i] = int(g)
		}
		// The user last: whoever is not root can change nothing more.
		if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(u.Gid)), syscall.Setuid(int(u.Uid))); err != nil {
			return err
		}
	}
	file, argv := args[1], args[2:]
	err := syscall.Exec(file, argv, os.Environ())
	if errors.Is(err, syscall.ENOEXEC) && isScript(".", file) {
		err = syscall.Exec("/bin/sh", append([]string{"sh", file}, argv[1:]...), os.Environ())
	}
	return fmt.Errorf("%s: %w", file, err)
}
