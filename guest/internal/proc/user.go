package proc

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"vmsan/guest/internal/wire"
)

// User is a resolved `user` of a request.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32
	Home   string
	Shell  string
}

// maxDatabase bounds what is read of /etc/passwd and /etc/group.
const maxDatabase = 4 << 20

// LookupUser resolves `name`, `uid`, `name:group` or `uid:gid` with the
// databases below etc; "" is the agent's own user. Numbers need not be listed.
func LookupUser(etc, spec string) (*User, error) {
	self := uint32(os.Getuid())
	if spec == "" {
		spec = strconv.Itoa(int(self))
	}
	name, group, hasGroup := strings.Cut(spec, ":")
	bad := func(why string) error {
		return wire.Errorf(wire.CodeUser, "The user %.64q cannot be used.", spec).Because(why).
			Remedy("Give a name from the guest's /etc/passwd, or numbers: UID or UID:GID.")
	}
	if name == "" || hasGroup && group == "" {
		return nil, bad("a name or number is missing")
	}
	u := &User{Home: "/"}
	number, isNumber := parseID(name)
	u.UID = number
	found := false
	scanDatabase(etc+"/passwd", func(f []string) bool {
		if len(f) < 7 {
			return true
		}
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 || f[0] != name && (!isNumber || uid != number) {
			return true
		}
		u.Name, u.UID, u.GID, u.Home, u.Shell, found = f[0], uid, gid, f[5], f[6], true
		return false
	})
	switch {
	case found || isNumber:
	case name == "root":
		// An image without /etc/passwd still has its root.
		u.Name, u.Home = "root", "/root"
	default:
		return nil, bad("the guest's /etc/passwd does not list it")
	}
	if !found && u.UID == 0 {
		u.Name, u.Home = "root", "/root"
	}
	if u.Home == "" {
		u.Home = "/"
	}
	if u.Name == "" {
		u.Name = strconv.Itoa(int(u.UID))
	}
	if hasGroup {
		gid, ok := parseID(group)
		scanDatabase(etc+"/group", func(f []string) bool {
			if len(f) < 3 || f[0] != group {
				return true
			}
			n, valid := parseID(f[2])
			if valid {
				gid, ok = n, true
			}
			return !valid
		})
		if !ok {
			return nil, bad("the guest's /etc/group does not list the group")
		}
		u.GID = gid
	} else if found {
		scanDatabase(etc+"/group", func(f []string) bool {
			if len(f) < 4 || len(u.Groups) >= 1024 {
				return len(u.Groups) < 1024
			}
			for _, m := range strings.Split(f[3], ",") {
				if gid, ok := parseID(f[2]); m == u.Name && ok && gid != u.GID {
					u.Groups = append(u.Groups, gid)
				}
			}
			return true
		})
	}
	if self != 0 && (u.UID != self || hasGroup && u.GID != uint32(os.Getgid())) {
		return nil, bad("the agent runs as user " + strconv.Itoa(int(self)) + " and cannot become another one")
	}
	if self != 0 {
		u.GID = uint32(os.Getgid())
	}
	return u, nil
}

// parseID takes a decimal user or group number; the all-ones number means "unchanged" to the kernel and is refused.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 0xffffffff
}

// scanDatabase calls line with the fields of each line until it gives false.
// A missing or unreadable file is an empty one: images without /etc are fine.
func scanDatabase(path string, line func([]string) bool) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return
	}
	s := bufio.NewScanner(io.LimitReader(f, maxDatabase))
	s.Buffer(make([]byte, 0, 4096), 1<<20)
	for s.Scan() {
		if t := strings.TrimSpace(s.Text()); t != "" && t[0] != '#' && !line(strings.Split(t, ":")) {
			return
		}
	}
}
