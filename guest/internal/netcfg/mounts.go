package netcfg

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vmsan/guest/internal/blockdev"
	"vmsan/guest/internal/files"
	"vmsan/guest/internal/wire"
)

// Kinds of mounts.
const (
	// kindOwn: a directory on the VM's own disk, beside the overlay.
	kindOwn = "own"
	// kindVolume: the directory "data" of a disk.
	kindVolume = "volume"
	// kindTmpfs: a file system in the guest's memory.
	kindTmpfs = "tmpfs"
)

// Mount puts something at a place of the guest's tree, which is made if it is missing.
type Mount struct {
	Kind   string `json:"kind"`
	Target string `json:"target"`
	// Label of a volume's disk.
	Label    string `json:"label"`
	ReadOnly bool   `json:"readOnly"`
	// Fill copies what the image has at the target into a volume that is empty.
	Fill bool `json:"fill"`
	// Empty: of the VM's own disk nothing of the image, and everybody may write there unless Mode says otherwise.
	Empty bool `json:"empty"`
	// Name: mounts of one kind and name show the same directory; "": each has its own.
	Name string `json:"name"`
	// Part of it that is shown: a path below it, made where it is missing (but of a volume); "": all of it.
	Part string `json:"part"`
	// SizeBytes of a tmpfs; 0: half of the memory. Mode of its root; nil: everybody's, as /tmp.
	SizeBytes uint64  `json:"sizeBytes"`
	Mode      *uint32 `json:"mode"`
	UID       uint32  `json:"uid"`
	GID       uint32  `json:"gid"`
	NoExec    bool    `json:"noexec"`
	// Optional: a failure is a warning.
	Optional bool `json:"optional"`
}

// volumeData is the directory of a volume's file system that guests see: beside
// it lies lost+found, which programs that want an empty directory do not bear.
const volumeData = "data"

// diskWait is how long a volume's disk may take to appear.
const diskWait = 5 * time.Second

func checkMount(m *Mount) error {
	if !strings.HasPrefix(m.Target, "/") || len(m.Target) > maxPath || strings.ContainsRune(m.Target, 0) {
		return bad("The mount on %.128q needs an absolute target.", m.Target)
	}
	if m.Mode != nil && *m.Mode > 0o7777 || !isPart(m.Part) || len(m.Name) > maxMountName || strings.HasPrefix(m.Name, "/") {
		return bad("The mount on %.128q has no such mode, part or name.", m.Target)
	}
	switch {
	case m.Kind == kindOwn && m.Label == "":
	case m.Kind == kindVolume && m.Name == "" && strings.HasPrefix(m.Label, blockdev.VolumePrefix):
	case m.Kind == kindTmpfs && m.Label == "":
	default:
		return bad("The mount on %.128q is of no kind, or of no volume.", m.Target)
	}
	return nil
}

// mountAll mounts what is not mounted yet, in the order given. shared are the places of what is mounted besides.
func (c *Config) mountAll(mounts []Mount, shared []string, warn func(error)) error {
	for _, m := range mounts {
		if c.mounted[m.Target] || m.Optional && c.isBehindLink(m.Target, shared) {
			continue
		}
		if err := c.mount(m); err != nil {
			err = wire.AsInfo(err, wire.CodeMount, "Nothing could be mounted on "+m.Target+".")
			if !m.Optional {
				return err
			}
			warn(err)
			continue
		}
		if c.mounted == nil {
			c.mounted = map[string]bool{}
		}
		c.mounted[m.Target] = true
	}
	return nil
}

// isBehindLink tells whether something was mounted where links lead from a place that the image wants kept apart. What the
// user has put there must not be hidden by the image's own.
func (c *Config) isBehindLink(target string, shared []string) bool {
	place, err := filepath.EvalSymlinks(target)
	return err == nil && place != target && (c.mounted[place] || slices.Contains(shared, place))
}

func (c *Config) mount(m Mount) error {
	if m.Kind == kindVolume && m.Part != "" {
		return mountVolume(m) // which may have a file there
	}
	place := makePlace
	if m.Optional {
		place = MakeDirectory // the image's own: root's, as with Docker
	}
	if err := place(m.Target); err != nil {
		return wire.Errorf(wire.CodeMount, "%.256q cannot be a directory of the guest.", m.Target).Because(err)
	}
	switch m.Kind {
	case kindVolume:
		return mountVolume(m)
	case kindTmpfs:
		return c.mountMemory(m)
	}
	if c.Own != nil {
		dir, err := ownDirectory(fdPath(c.Own), m)
		if err != nil {
			return err
		}
		return bindPart(dir, m)
	}
	if m.Name != "" || m.Part != "" || m.ReadOnly {
		return wire.Errorf(wire.CodeMount, "The guest has no disk beside its root for %.256q.", m.Target)
	}
	// The disk is the root itself.
	if m.Empty {
		return os.Chmod(m.Target, emptyMode)
	}
	return nil
}

// mountMemory mounts a file system in memory, or shows what one of that name has.
func (c *Config) mountMemory(m Mount) error {
	if m.Name == "" && m.Part == "" {
		if err := mountTmpfs(m, m.Target); err != nil || !m.ReadOnly {
			return err
		}
		return makeReadOnly(m.Target)
	}
	place := c.memories[m.Name]
	if place == "" {
		// Out of everybody's way, and there for as long as the guest runs.
		made, err := os.MkdirTemp("/dev", ".vmsan-memory-")
		if err != nil {
			return err
		}
		// The directory is root's: else what is in it could be had there, past what a mount shows and permits.
		inner := made + "/all"
		if err := os.Mkdir(inner, 0o700); err != nil {
			return errors.Join(err, os.Remove(made))
		}
		if err := mountTmpfs(m, inner); err != nil {
			return errors.Join(err, os.RemoveAll(made))
		}
		if c.memories == nil {
			c.memories = map[string]string{}
		}
		place, c.memories[m.Name] = inner, inner
	}
	return bindPart(place, m)
}

// mountTmpfs mounts a file system in memory at target.
func mountTmpfs(m Mount, target string) error {
	mode := uint32(0o1777)
	if m.Mode != nil {
		mode = *m.Mode
	}
	options := fmt.Sprintf("mode=%o,uid=%d,gid=%d", mode, m.UID, m.GID)
	if m.SizeBytes > 0 {
		options += ",size=" + strconv.FormatUint(m.SizeBytes, 10)
	}
	flags := uintptr(syscall.MS_NOSUID | syscall.MS_NODEV)
	if m.NoExec {
		flags |= syscall.MS_NOEXEC
	}
	return syscall.Mount("tmpfs", target, "tmpfs", flags, options)
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// emptyMode is that of directories that begin empty: whoever runs in the guest may write there.
const emptyMode = 0o777

// ownDirectory is a directory of the VM's own disk; the first time it is made, empty or as a copy of what the image
// has at the target.
func ownDirectory(disk string, m Mount) (string, error) {
	// A name does not begin as a path does.
	key := m.Target
	if m.Name != "" {
		key = m.Name
	}
	sum := sha256.Sum256([]byte(key))
	all := disk + "/volumes"
	if err := os.Mkdir(all, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	dir := all + "/" + hex.EncodeToString(sum[:16])
	_, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		if m.Empty {
			err = makeEmpty(dir, m)
		} else {
			err = fill(m.Target, dir)
		}
	}
	return dir, err
}

// makeEmpty makes a directory with owner and mode of empty ones: it is there when it has them.
func makeEmpty(dir string, m Mount) error {
	made := dir + ".new"
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	mode := uint32(emptyMode)
	if m.Mode != nil {
		mode = *m.Mode
	}
	// The owner first: its change clears bits of the mode.
	if err := errors.Join(os.Chown(made, int(m.UID), int(m.GID)), syscall.Chmod(made, mode)); err != nil {
		return err
	}
	return syscall.Rename(made, dir)
}

// mountVolume shows a volume's data, or a part of it, at target.
func mountVolume(m Mount) error {
	disk := ""
	for deadline := time.Now().Add(diskWait); disk == ""; time.Sleep(5 * time.Millisecond) {
		if disk = blockdev.ByLabel(m.Label); disk == "" && time.Now().After(deadline) {
			return wire.Errorf(wire.CodeMount, "The disk of the volume for %.256q is not there.", m.Target)
		}
	}
	// Out of everybody's way: only the bind below stays.
	whole, err := os.MkdirTemp("/dev", ".vmsan-volume-")
	if err != nil {
		return err
	}
	defer os.Remove(whole)
	var flags uintptr
	if m.ReadOnly {
		flags = syscall.MS_RDONLY
	}
	if err := syscall.Mount("/dev/"+disk, whole, "ext4", flags, ""); err != nil {
		return err
	}
	defer func() { _ = syscall.Unmount(whole, syscall.MNT_DETACH) }() // just mounted
	data := whole + "/" + volumeData
	if m.Part != "" {
		return bindFound(data, m)
	}
	if !m.ReadOnly {
		if err := os.Mkdir(data, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		names, err := os.ReadDir(data)
		if err != nil {
			return err
		}
		if m.Fill && len(names) == 0 {
			if err := fill(m.Target, data); err != nil {
				return err
			}
		}
	}
	return syscall.Mount(data, m.Target, "", syscall.MS_BIND, "")
}

// fill makes dir, which is missing or empty, a copy of the directory from: whole
// or not at all, whenever the guest is cut off.
func fill(from, dir string) error {
	made := dir + ".new"
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	if err := files.CopyTree(from, made); err != nil {
		return err
	}
	f, err := os.Open(made)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, e := syscall.Syscall(sysSyncfs, f.Fd(), 0, 0); e != 0 {
		return os.NewSyscallError("syncfs", e)
	}
	// os.Rename refuses an empty directory that is in the way, which the kernel replaces.
	return syscall.Rename(made, dir)
}
