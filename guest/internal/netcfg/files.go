package netcfg

import (
	"fmt"
	"os"
	"strings"
	"syscall"
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
	dfd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return replaceFile(dir, name, content, mode)
	}
	defer syscall.Close(dfd)
	fd, err := syscall.Openat(dfd, name, syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return replaceFile(dir, name, content, mode)
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode != syscall.S_IFREG|mode || st.Nlink != 1 {
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
