package files

import (
	"archive/tar"
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

const (
	maxName  = 4096
	maxDepth = 1024
	nameMax  = 255
	// copyBuffer is how much of a file is copied at a time.
	copyBuffer = 128 << 10
)

// UntarOptions of kind untar.
type UntarOptions struct {
	// Path is the directory that receives the archive's names.
	Path string
	// Parents makes Path if it is missing.
	Parents bool
	// Owners takes the archive's numbers instead of the user's.
	Owners bool
	// Attributes gives files the extended attributes of users that the archive has for them.
	Attributes bool
	// Plain leaves devices out, and blocks of zeros in all files.
	Plain bool
}

// untarrer extracts into a temporary directory and then moves into place.
type untarrer struct {
	opts UntarOptions
	dest *os.File
	tmp  *os.File
	// dir is the directory of the entry before, which usually is the next one's too.
	dir     *os.File
	dirName string
	// later: directories get mode and time when everything is in place.
	later map[string]*tar.Header
	order []string
	// buf is what one file after the other is copied with.
	buf []byte
}

// Untar reads a tar archive from r and puts it below opts.Path. Either all of
// it appears there, or (until the very last step) nothing.
func Untar(opts UntarOptions, r io.Reader) (err error) {
	if opts.Parents {
		if err := os.MkdirAll(opts.Path, 0o755); err != nil {
			return fileError(err, "The directory %.256q cannot be made.", opts.Path)
		}
	}
	u := &untarrer{opts: opts, later: map[string]*tar.Header{}, buf: make([]byte, copyBuffer)}
	if u.dest, err = os.OpenFile(opts.Path, syscall.O_RDONLY|syscall.O_DIRECTORY, 0); err != nil {
		return fileError(err, "The directory %.256q cannot be used.", opts.Path)
	}
	defer u.dest.Close()
	name := asideName()
	if err := os.Mkdir(at(u.dest, name), 0o700); err != nil {
		return fileError(err, "Nothing can be written into %.256q.", opts.Path)
	}
	defer func() {
		if rerr := removeAll(u.dest, name); rerr != nil && err == nil {
			err = fileError(rerr, "The temporary directory in %.256q could not be removed.", opts.Path)
		}
	}()
	if u.tmp, err = openDir(u.dest, name); err != nil {
		return fileError(err, "Nothing can be written into %.256q.", opts.Path)
	}
	defer u.tmp.Close()
	defer u.leaveDir()
	if err := u.extract(r); err != nil {
		return err
	}
	if err := u.check(u.tmp, u.dest, "", 0); err != nil {
		return err
	}
	if err := u.place(u.tmp, u.dest, ""); err != nil {
		return err
	}
	return u.finishDirs()
}

// asideName is a name that nobody has.
func asideName() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails on Linux
	return ".vmsan-untar-" + hex.EncodeToString(id[:])
}

func archiveError(format string, args ...any) error {
	return wire.Errorf(wire.CodeArchive, format, args...)
}

func (u *untarrer) extract(r io.Reader) error {
	// Headers are short reads, each of which would be a turn of the stream.
	r = bufio.NewReaderSize(r, 128<<10)
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			// Whatever follows the end is read too: the sender is not cut off.
			if _, err := io.Copy(io.Discard, r); err != nil {
				return fileError(err, "The archive's end could not be read.")
			}
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return wire.Errorf(wire.CodeArchive, "The archive cannot be read.").Because(err)
		}
		if err := u.entry(h, t); err != nil {
			return err
		}
	}
}

// cleanName checks a name and gives it without slashes at either end: as with tar(1), one that begins
// with a slash is meant below the target. "" is the archive's root.
func cleanName(name string) (string, error) {
	if len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return "", archiveError("The name %.128q in the archive is not allowed.", name)
	}
	var parts []string
	for _, p := range strings.Split(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == ".." || len(p) > nameMax:
			return "", archiveError("The name %.128q in the archive is not allowed.", name)
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) > maxDepth {
		return "", archiveError("The name %.128q… in the archive is deeper than %d directories.", name, maxDepth)
	}
	return strings.Join(parts, "/"), nil
}

func (u *untarrer) entry(h *tar.Header, t *tar.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	}
	full, err := cleanName(h.Name)
	if err != nil || full == "" {
		return err
	}
	dirName, name := "", full
	if i := strings.LastIndexByte(full, '/'); i >= 0 {
		dirName, name = full[:i], full[i+1:]
	}
	if err := u.enterDir(dirName); err != nil {
		return err
	}
	where := at(u.dir, name)
	fail := func(err error) error { return fileError(err, "%.256q of the archive could not be written.", full) }
	if h.Typeflag == tar.TypeDir {
		if err := os.Mkdir(where, 0o700); err != nil {
			if fi, lerr := os.Lstat(where); lerr != nil || !fi.IsDir() {
				return fail(err)
			}
		}
		if u.later[full] == nil {
			u.order = append(u.order, full)
		}
		u.later[full] = h
		return nil
	}
	if u.opts.Plain && (h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock) {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // TypeRegA is what old archives have
		return u.regular(h, t, name, full)
	}
	if err := clearName(where, full); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		if err := os.Symlink(h.Linkname, where); err != nil {
			return fail(err)
		}
	case tar.TypeLink:
		if err := u.link(h.Linkname, where, full); err != nil {
			return err
		}
		return nil
	case tar.TypeFifo:
		if err := syscall.Mknod(where, syscall.S_IFIFO|0o600, 0); err != nil {
			return fail(err)
		}
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(syscall.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = syscall.S_IFBLK
		}
		if err := syscall.Mknod(where, kind|0o600, makedev(h.Devmajor, h.Devminor)); err != nil {
			return fail(err)
		}
	default:
		return archiveError("%.256q in the archive is of the unknown type %q.", full, string(h.Typeflag))
	}
	if err := u.meta(h, where, h.Typeflag == tar.TypeSymlink); err != nil {
		return fail(err)
	}
	return nil
}

// clearName removes an earlier entry of the same name: the last one counts.
func clearName(where, full string) error {
	fi, err := os.Lstat(where)
	if err != nil {
		return nil // nothing is there, or what follows fails at it as well
	}
	if fi.IsDir() {
		return archiveError("The archive has %.256q both as a directory and as something else.", full)
	}
	if err := os.Remove(where); err != nil {
		return fileError(err, "%.256q of the archive could not be written.", full)
	}
	return nil
}

func makedev(major, minor int64) int {
	ma, mi := uint64(major), uint64(minor)
	return int((ma&0xfff)<<8 | (ma&^0xfff)<<32 | mi&0xff | (mi&^0xff)<<12)
}

func (u *untarrer) leaveDir() {
	if u.dir != nil && u.dir != u.tmp {
		_ = u.dir.Close() // a directory; nothing is lost
	}
	u.dir, u.dirName = nil, ""
}

// enterDir makes u.dir the directory of that name in the temporary tree, made where missing.
func (u *untarrer) enterDir(name string) error {
	if u.dir != nil && u.dirName == name {
		return nil
	}
	u.leaveDir()
	d, err := u.walk(u.tmp, name, true)
	if err != nil {
		return fileError(err, "The directory %.256q of the archive cannot be used.", name)
	}
	u.dir, u.dirName = d, name
	return nil
}

// walk opens name below root, one component after the other, never through a symlink.
func (u *untarrer) walk(root *os.File, name string, create bool) (*os.File, error) {
	d := root
	if name == "" {
		return d, nil
	}
	for _, part := range strings.Split(name, "/") {
		next, err := openDir(d, part)
		if create && errors.Is(err, os.ErrNotExist) {
			if err = os.Mkdir(at(d, part), 0o755); err == nil {
				next, err = openDir(d, part)
			}
		}
		if d != root {
			_ = d.Close() // a directory; nothing is lost
		}
		if err != nil {
			return nil, err
		}
		d = next
	}
	return d, nil
}

func (u *untarrer) link(to, where, full string) error {
	target, err := cleanName(to)
	if err != nil {
		return err
	}
	dirName, name := "", target
	if i := strings.LastIndexByte(target, '/'); i >= 0 {
		dirName, name = target[:i], target[i+1:]
	}
	d, err := u.walk(u.tmp, dirName, false)
	if err == nil {
		err = os.Link(at(d, name), where)
		if d != u.tmp {
			_ = d.Close() // a directory; nothing is lost
		}
	}
	if err != nil {
		return wire.Errorf(wire.CodeArchive, "The hard link %.128q to %.128q in the archive cannot be made.", full, to).Because(err)
	}
	return nil
}

// meta sets owner, mode and time, in this order: changing the owner clears setuid.
func (u *untarrer) meta(h *tar.Header, path string, symlink bool) error {
	if u.opts.Owners {
		if err := os.Lchown(path, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if !symlink {
		// Before the mode, which may forbid it.
		if err := u.attributes(h, path); err != nil {
			return err
		}
		if err := syscall.Chmod(path, uint32(h.Mode&0o7777)); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	return utimes(path, h.ModTime.Unix(), int64(h.ModTime.Nanosecond()))
}

// attributes gives a file or directory what the archive has of users' attributes.
func (u *untarrer) attributes(h *tar.Header, path string) error {
	if !u.opts.Attributes {
		return nil
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxAttribute)
		if !ok || !strings.HasPrefix(name, userAttributes) {
			continue
		}
		if err := syscall.Setxattr(path, name, []byte(value), 0); err != nil {
			return &os.PathError{Op: "setxattr", Path: path, Err: err}
		}
	}
	return nil
}

// finishDirs sets mode and time of the new directories, the deepest first.
func (u *untarrer) finishDirs() error {
	for i := len(u.order) - 1; i >= 0; i-- {
		name := u.order[i]
		h := u.later[name]
		if h == nil {
			continue
		}
		dir, base := "", name
		if j := strings.LastIndexByte(name, '/'); j >= 0 {
			dir, base = name[:j], name[j+1:]
		}
		d, err := u.walk(u.dest, dir, false)
		if err == nil {
			err = u.meta(h, at(d, base), false)
			if d != u.dest {
				_ = d.Close() // a directory; nothing is lost
			}
		}
		if err != nil {
			return fileError(err, "The mode or time of %.256q could not be set.", u.opts.Path+"/"+name)
		}
	}
	return nil
}

// removeAll removes name below dir, directories without write permission too.
func removeAll(dir *os.File, name string) error {
	d, err := openDir(dir, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.Remove(at(d, n)); err == nil {
			continue
		}
		if err := syscall.Chmod(at(d, n), 0o700); err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
		if err := removeAll(d, n); err != nil {
			return err
		}
	}
	return os.Remove(at(dir, name))
}
