package proc

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"vmsan/guest/internal/wire"
)

// User is a resolved `user` of a request.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // GID first
	Home   string
	Shell  string
}

// maxDatabase bounds what is read of /etc/passwd and /etc/group.
const maxDatabase = 4 << 20

// maxGroups is how many groups a user is in at most.
const maxGroups = 1024

// OwnHome, unless "", is the home of the agent's own user, whatever the databases say: an agent that is an ordinary
// process of a host leaves alone what that user has at home.
var OwnHome string

// LookupUser resolves `name`, `uid`, `name:group` or `uid:gid` with the
// databases below etc; "" is the agent's own user. It reads them as runc does: a
// number is a number, also where a user or group is called so, and need not be
// listed; the first line that fits counts; an empty user is root (the agent's own), an
// empty group the user's primary one; what follows a second colon is ignored. Unlike there, groups behind commas
// (`uid:gid,gid`) are further ones.
func LookupUser(etc, spec string) (*User, error) {
	self := uint32(os.Getuid())
	parts := append(strings.SplitN(spec, ":", 3), "")
	name := parts[0]
	group, further, _ := strings.Cut(parts[1], ",")
	bad := func(why string) error {
		return wire.Errorf(wire.CodeUser, "The user %.64q cannot be used.", spec).Because(why).
			Remedy("Give a name from the guest's /etc/passwd, or numbers: UID or UID:GID.")
	}
	u := &User{Home: "/"}
	number, isNumber := parseID(name)
	if name == "" {
		number, isNumber = self, true
	}
	u.UID = number
	found := false
	scanDatabase(etc+"/passwd", func(f []string) bool {
		f = append(f, "", "", "", "", "", "")
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 || isNumber && uid != number || !isNumber && f[0] != name {
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
	if OwnHome != "" && u.UID == self {
		u.Home = OwnHome
	}
	if u.Home == "" {
		u.Home = "/"
	}
	if u.Name == "" {
		u.Name = strconv.Itoa(int(u.UID))
	}
	if err := u.lookupGroups(etc, group, found); err != nil {
		return nil, bad(err.Error())
	}
	if further != "" {
		for _, s := range strings.Split(further, ",") {
			gid, ok := lookupGroup(etc, s)
			if !ok {
				return nil, bad("the guest's /etc/group does not list the group " + strconv.Quote(s))
			}
			if len(u.Groups) >= maxGroups {
				return nil, bad("it has too many groups")
			}
			if !slices.Contains(u.Groups, gid) {
				u.Groups = append(u.Groups, gid)
			}
		}
	}
	if self != 0 && (u.UID != self || further != "" || group != "" && u.GID != uint32(os.Getgid())) {
		return nil, bad("the agent runs as user " + strconv.Itoa(int(self)) + " and cannot become another one")
	}
	if self != 0 {
		u.GID = uint32(os.Getgid())
	}
	return u, nil
}

// lookupGroup gives the number of a group that is named, or given by its number.
func lookupGroup(etc, group string) (gid uint32, found bool) {
	if gid, found = parseID(group); found {
		return gid, true
	}
	scanDatabase(etc+"/group", func(f []string) bool {
		if len(f) >= 3 && f[0] == group {
			gid, found = parseID(f[2])
		}
		return !found
	})
	return gid, found
}

// lookupGroups sets the group that was asked for; without one, the groups that
// list a user of /etc/passwd as their member. The primary group is among them,
// so that it still counts for a process that changes its own.
func (u *User) lookupGroups(etc, group string, listed bool) error {
	if group != "" {
		gid, found := lookupGroup(etc, group)
		if !found {
			return errors.New("the guest's /etc/group does not list the group")
		}
		u.GID = gid
	}
	u.Groups = []uint32{u.GID}
	if group != "" || !listed {
		return nil
	}
	scanDatabase(etc+"/group", func(f []string) bool {
		if len(f) < 4 {
			return true
		}
		for _, m := range strings.Split(f[3], ",") {
			if gid, ok := parseID(f[2]); m == u.Name && ok && gid != u.GID {
				u.Groups = append(u.Groups, gid)
			}
		}
		return len(u.Groups) < maxGroups
	})
	return nil
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
