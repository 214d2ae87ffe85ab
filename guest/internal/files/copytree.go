package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// CopyTree makes to, which must not exist, a copy of the directory from: contents
// with their holes, owners, modes, times, links among its files, devices and
// extended attributes. Sockets, which are nothing without their process, are left out.
func CopyTree(from, to string) error {
	source, err := os.OpenFile(from, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	dest, err := os.OpenFile(filepath.Dir(to), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dest.Close()
	c := &treeCopier{links: map[[2]uint64]string{}, root: dest}
	return c.copy(source, ".", dest, filepath.Base(to), filepath.Base(to), 0)
}

type treeCopier struct {
	// links has the first name of each file that has several, from root.
	links map[[2]uint64]string
	root  *os.File
}

// copy makes the entry name in the directory to of the entry source in from.
// path is its name from the root.
func (c *treeCopier) copy(from *os.File, source string, to *os.File, name, path string, depth int) error {
	var st syscall.Stat_t
	src, dst := at(from, source), at(to, name)
	if err := syscall.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	kind := st.Mode & syscall.S_IFMT
	if kind != syscall.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := c.links[key]; ok {
			return os.Link(at(c.root, first), dst)
		}
		c.links[key] = path
	}
	var err error
	switch kind {
	case syscall.S_IFDIR:
		err = c.copyDir(from, source, to, name, path, depth)
	case syscall.S_IFREG:
		err = copyRegular(src, dst)
	case syscall.S_IFLNK:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = os.Symlink(target, dst)
		}
	case syscall.S_IFCHR, syscall.S_IFBLK, syscall.S_IFIFO:
		err = syscall.Mknod(dst, st.Mode, int(st.Rdev))
	default:
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "copy", Path: path, Err: err}
	}
	// The owner first: its change clears bits of the mode. Attributes after the mode,
	// which an access list is part of; times last, which everything before changes.
	if err := syscall.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: path, Err: err}
	}
	if kind != syscall.S_IFLNK {
		if err := syscall.Chmod(dst, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
		if err := CopyAttributes(src, dst); err != nil {
			return err
		}
	}
	return utimes(dst, int64(st.Mtim.Sec), int64(st.Mtim.Nsec))
}

func (c *treeCopier) copyDir(from *os.File, source string, to *os.File, name, path string, depth int) error {
	if depth >= maxDepth {
		return syscall.ELOOP
	}
	if err := os.Mkdir(at(to, name), 0o700); err != nil {
		return err
	}
	d, err := openDir(from, source)
	if err != nil {
		return err
	}
	defer d.Close()
	into, err := openDir(to, name)
	if err != nil {
		return err
	}
	defer into.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.copy(d, n, into, n, path+"/"+n, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func copyRegular(from, to string) error {
	in, err := os.OpenFile(from, syscall.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyFile(int(out.Fd()), in, make([]byte, copyBuffer), true), out.Close())
}

// CopyAttributes copies extended attributes, without those that overlays use themselves.
func CopyAttributes(from, to string) error {
	names := make([]byte, maxAttributeNames)
	n, err := syscall.Listxattr(from, names)
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "list the attributes of", Path: from, Err: err}
	}
	value := make([]byte, maxAttribute)
	for _, name := range strings.Split(string(names[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		size, err := syscall.Getxattr(from, name, value)
		if err == nil {
			err = syscall.Setxattr(to, name, value[:size], 0)
		}
		if err != nil {
			return &os.PathError{Op: "copy " + name, Path: from, Err: err}
		}
	}
	return nil
}
