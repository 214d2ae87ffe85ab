package boot

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"syscall"

	"vmsan/guest/internal/blockdev"
	"vmsan/guest/internal/files"
	"vmsan/guest/internal/netcfg"
)

// disks lists the virtio disks in order, with whether each is read-only; those
// with the kernel's modules or a volume are no part of them.
func disks() (names []string, readOnly map[string]bool) {
	readOnly = map[string]bool{}
	for _, name := range blockdev.Names() {
		if _, err := os.Stat("/dev/" + name); err != nil {
			continue
		}
		if label := blockdev.Label(name); label == blockdev.ModulesLabel || strings.HasPrefix(label, blockdev.VolumePrefix) {
			continue
		}
		b, err := os.ReadFile("/sys/block/" + name + "/ro")
		readOnly[name] = err == nil && strings.TrimSpace(string(b)) == "1"
		names = append(names, name)
	}
	sort.Strings(names)
	return names, readOnly
}

// mountRoot mounts the image's root on target.
func (m *Machine) mountRoot(target string) error {
	need := 2
	if m.Params.Root == "flat" {
		need = 1
	}
	var names []string
	var readOnly map[string]bool
	waitFor(func() string {
		if names, readOnly = disks(); len(names) >= need {
			return names[0]
		}
		return ""
	})
	if len(names) > 0 && blockdev.Label(names[0]) == blockdev.BlankLabel {
		if err := m.holdForDisks(); err != nil {
			return err
		}
		return m.mountRoot(target)
	}
	if len(names) < need {
		return fail(CodeDisk, nil, "%d disks are needed for vmsan.root=%s but the VM has %d (%s)",
			need, m.Params.Root, len(names), strings.Join(names, ", "))
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fail(CodeRoot, err, "%s cannot be made", target)
	}
	if need == 1 {
		if err := mountExt4(names[0], target, 0); err != nil {
			return err
		}
		return m.keep(target)
	}
	base, upper := names[0], names[1]
	if readOnly[upper] && !readOnly[base] {
		// VMMs number their devices as they please; only one order can be meant.
		base, upper = upper, base
	}
	if err := mountExt4(base, "/base", syscall.MS_RDONLY); err != nil {
		return err
	}
	if err := mountExt4(upper, "/rw", 0); err != nil {
		return err
	}
	if err := os.Mkdir("/rw/work", 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fail(CodeRoot, err, "/rw/work cannot be made on the VM's own disk")
	}
	if err := makeUpper("/base", "/rw/upper"); err != nil {
		return fail(CodeRoot, err, "/rw/upper cannot be made on the VM's own disk")
	}
	if err := mountOverlay(target); err != nil {
		return err
	}
	return m.keep("/rw")
}

// makeUpper makes the overlay's upper directory unless it is there. "/" of the
// overlay has the mode, owner and attributes of that one, not of the base: so it
// gets the base's. Under another name first, because the boot may be cut off.
func makeUpper(base, upper string) error {
	if _, err := os.Lstat(upper); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(base, &st); err != nil {
		return err
	}
	made := upper + ".new"
	if err := os.Mkdir(made, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := syscall.Chown(made, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	// After the owner, whose change clears bits of the mode; attributes after the mode, which an
	// access list is part of.
	if err := syscall.Chmod(made, st.Mode&0o7777); err != nil {
		return err
	}
	if err := files.CopyAttributes(base, made); err != nil {
		// A file system or kernel that does not know one of them is no reason not to boot.
		fmt.Fprintf(os.Stderr, "vmsan-agent: warning: attributes of the image's root: %v\n", err)
	}
	return os.Rename(made, upper)
}

func mountOverlay(target string) error {
	const dirs = "lowerdir=/base,upperdir=/rw/upper,workdir=/rw/work"
	// redirect_dir lets rename(2) work on directories of the base.
	err := syscall.Mount("overlay", target, "overlay", 0, dirs+",redirect_dir=on")
	if errors.Is(err, syscall.EINVAL) {
		err = syscall.Mount("overlay", target, "overlay", 0, dirs)
	}
	if err != nil {
		return fail(CodeRoot, err, "the overlay of base image and own disk cannot be mounted")
	}
	return nil
}

func mountExt4(disk, target string, flags uintptr) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fail(CodeRoot, err, "%s cannot be made", target)
	}
	if err := checkExt4("/dev/" + disk); err != nil {
		return fail(CodeDisk, err, "the disk %s cannot be used", disk)
	}
	options := ""
	if flags&syscall.MS_RDONLY == 0 {
		// Else the kernel writes zeros into all tables of inodes behind every first start.
		options = "noinit_itable"
	}
	if err := syscall.Mount("/dev/"+disk, target, "ext4", flags, options); err != nil {
		return fail(CodeDisk, err, "the disk %s cannot be mounted as ext4", disk)
	}
	return nil
}

// checkExt4 looks for the superblock's magic: mount's own errors name anything
// but the cause when it is not there.
func checkExt4(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [2]byte
	if _, err := f.ReadAt(magic[:], 1024+0x38); err != nil || magic != [2]byte{0x53, 0xef} {
		return errors.New("it holds no ext4 file system")
	}
	return nil
}

// keep holds the writable file system, to make it read-only at the end.
func (m *Machine) keep(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fail(CodeRoot, err, "%s cannot be opened", path)
	}
	m.disk = f
	return nil
}

// switchRoot makes target "/", with the kernel's file systems moved into it.
func switchRoot(target string) error {
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		if err := ensureDir(target, d, 0o755); err != nil {
			return fail(CodeRoot, err, "%s cannot be made in the image's root", d)
		}
		if err := syscall.Mount(d, target+d, "", syscall.MS_MOVE, ""); err != nil {
			return fail(CodeRoot, err, "%s cannot be moved into the image's root", d)
		}
	}
	if err := os.Chdir(target); err != nil {
		return fail(CodeRoot, err, "the image's root cannot be entered")
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fail(CodeRoot, err, "the image's root cannot be moved to /")
	}
	if err := syscall.Chroot("."); err != nil {
		return fail(CodeRoot, err, "the root cannot be switched")
	}
	return os.Chdir("/")
}

// ensureDir makes a directory of the root that is at target; something else of that name
// (a symlink in the image, say) is replaced, which changes the VM's own disk only.
func ensureDir(target, name string, mode os.FileMode) error {
	path := target + name
	fi, err := os.Lstat(path)
	if err == nil && fi.IsDir() {
		return nil
	}
	if err == nil {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode.Perm()); err != nil {
		return err
	}
	// Mkdir is subject to the umask and does not know the sticky bit.
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	netcfg.MarkPlace(path, name)
	return nil
}

// furnish adds what programs expect and images may lack. Nothing here is worth
// ending the boot for: a program that needs it will say so.
func furnish() {
	const nosuid = syscall.MS_NOSUID | syscall.MS_NOEXEC
	_ = os.Mkdir("/dev/pts", 0o755)
	_ = syscall.Mount("devpts", "/dev/pts", "devpts", nosuid, "newinstance,ptmxmode=0666,mode=0620,gid=5")
	_ = os.Mkdir("/dev/shm", 0o755)
	_ = syscall.Mount("tmpfs", "/dev/shm", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=1777")
	_ = os.Mkdir("/dev/mqueue", 0o755)
	_ = syscall.Mount("mqueue", "/dev/mqueue", "mqueue", nosuid|syscall.MS_NODEV, "")
	for link, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		_ = os.Symlink(to, "/dev/"+link)
	}
	_ = syscall.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", nosuid|syscall.MS_NODEV, "nsdelegate,memory_recursiveprot")
	for dir, mode := range map[string]os.FileMode{"/tmp": 0o777 | os.ModeSticky, "/run": 0o755, "/etc": 0o755} {
		// Here a symlink is the image's own choice (/tmp to /var/tmp, say).
		if _, err := os.Stat(dir); err != nil {
			_ = ensureDir("", dir, mode)
		}
	}
	for name, value := range map[string]string{
		"net/ipv4/ping_group_range":           "0 2147483647", // ping without privileges
		"net/ipv4/ip_unprivileged_port_start": "0",            // as in containers: the VM is the user's own
		"fs/inotify/max_user_watches":         "524288",
		"fs/inotify/max_user_instances":       "1024",
	} {
		_ = os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	}
	_ = netcfg.LoopbackUp()
	// What processes of the guest may open; see docs/guest-agent.md.
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 1048576})
}
