package netcfg

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// replaceFile writes dir/name by renaming a temporary file over it: a symlink
// there (resolv.conf often is one) is replaced, never followed.
func replaceFile(dir, name, content string, mode uint32) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dfd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer syscall.Close(dfd)
	tmp := ".vmsan-" + name
	// Left over from an interrupted attempt, or not there.
	_ = syscall.Unlinkat(dfd, tmp)
	fd, err := syscall.Openat(dfd, tmp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
	if err != nil {
		return &os.PathError{Op: "create", Path: dir + "/" + tmp, Err: err}
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.WriteString(content)
	if cerr := f.Chmod(os.FileMode(mode)); err == nil {
		err = cerr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syscall.Renameat(dfd, tmp, dfd, name)
	}
	if err == syscall.EBUSY {
		// The user has mounted a file of their own there, which counts.
		return syscall.Unlinkat(dfd, tmp)
	}
	if err != nil {
		_ = syscall.Unlinkat(dfd, tmp) // the first failure is the one to report
		return fmt.Errorf("%s/%s: %w", dir, name, err)
	}
	return nil
}

// overwriteFile writes dir/name like replaceFile where a rehearsal has put a file that nobody has read yet, and
// can be cut off by nothing but the end of the VM, whose next start writes it anew. A new file and a rename cost
// an emulated guest ten times as much.
func overwriteFile(dir, name, content string, mode uint32) error {
	return inPlace(dir, name, content, mode, func(int) bool { return true })
}

// overwriteUnused is overwriteFile for files that work which stands still may have seen: one that anybody has open or
// mapped, or has mounted something over, is replaced.
func overwriteUnused(dir, name, content string, mode uint32) error {
	return inPlace(dir, name, content, mode, func(fd int) bool { return isOurs(fd) && !isMountPoint(fd) })
}

// inPlace writes dir/name over what is there if that is a file as the agent writes them and may is true of it.
func inPlace(dir, name, content string, mode uint32, may func(fd int) bool) error {
	dfd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return replaceFile(dir, name, content, mode)
	}
	defer syscall.Close(dfd)
	fd, err := syscall.Openat(dfd, name, syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return replaceFile(dir, name, content, mode)
	}
	// Closing it ends a lease as well.
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode != syscall.S_IFREG|mode || st.Nlink != 1 || !may(fd) {
		return replaceFile(dir, name, content, mode)
	}
	if n, err := syscall.Pwrite(fd, []byte(content), 0); err != nil || n != len(content) {
		return replaceFile(dir, name, content, mode)
	}
	if st.Size > int64(len(content)) {
		return syscall.Ftruncate(fd, int64(len(content)))
	}
	return nil
}

const (
	// Of linux/fcntl.h and linux/stat.h, where package syscall has no name.
	fSetLease          = 1024
	atEmptyPath        = 0x1000
	statxAttrMountRoot = 0x2000
	sizeofStatx        = 256
)

// isOurs tells whether nobody else has the file open or mapped: only then the kernel gives a lease for writing, for as
// long as fd is open.
func isOurs(fd int) bool {
	_, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), fSetLease, syscall.F_WRLCK)
	return e == 0
}

// isMountPoint tells whether the file is mounted there by itself, also when the kernel does not say.
func isMountPoint(fd int) bool {
	var st [sizeofStatx]byte
	empty := [1]byte{}
	_, _, e := syscall.Syscall6(sysStatx, uintptr(fd), uintptr(unsafe.Pointer(&empty)), atEmptyPath, 0, uintptr(unsafe.Pointer(&st)), 0)
	// stx_attributes, and stx_attributes_mask for what this kernel tells at all.
	attributes, told := binary.NativeEndian.Uint64(st[8:]), binary.NativeEndian.Uint64(st[56:])
	return e != 0 || told&statxAttrMountRoot == 0 || attributes&statxAttrMountRoot != 0
}

// hostsFile gives /etc/hosts.
func hostsFile(hostname string, extra []HostEntry) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	if hostname != "" && hostname != "localhost" {
		short, _, dotted := strings.Cut(hostname, ".")
		b.WriteString("127.0.1.1\t" + hostname)
		if dotted && short != "" {
			b.WriteString(" " + short)
		}
		b.WriteString("\n")
	}
	for _, h := range extra {
		if len(h.Names) > 0 {
			b.WriteString(h.Address + "\t" + strings.Join(h.Names, " ") + "\n")
		}
	}
	return b.String()
}

// resolvFile gives /etc/resolv.conf.
func resolvFile(n *Network) string {
	var b strings.Builder
	for _, d := range n.DNS {
		b.WriteString("nameserver " + d + "\n")
	}
	if len(n.Search) > 0 {
		b.WriteString("search " + strings.Join(n.Search, " ") + "\n")
	}
	return b.String()
}
