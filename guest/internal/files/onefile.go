package files

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"vmsan/guest/internal/wire"
)

// Read copies a file's bytes from offset on, at most length (nil: to its end).
// itself: a symlink in its place is not read through.
func Read(path string, itself bool, offset int64, length *int64, out io.Writer) error {
	flags := syscall.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY
	if itself {
		flags |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return fileError(err, "%.256q cannot be read.", path)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = syscall.EISDIR
	}
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return fileError(err, "%.256q cannot be read.", path)
	}
	left := int64(-1)
	if length != nil {
		left = *length
	}
	buf := make([]byte, 128<<10)
	for left != 0 {
		part := buf
		if left > 0 {
			part = buf[:min(left, int64(len(buf)))]
		}
		n, err := f.Read(part)
		if _, werr := out.Write(part[:n]); werr != nil {
			return werr
		}
		if left > 0 {
			left -= int64(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fileError(err, "%.256q cannot be read.", path)
		}
	}
	return nil
}

// ReadSmall gives a file's content, which has at most limit bytes.
func ReadSmall(path string, limit int64) ([]byte, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	if limit < 0 || limit > maxSmall {
		return nil, wire.Errorf(wire.CodeRequest, "The limit %d is not between 0 and %d.", limit, maxSmall)
	}
	var out bytes.Buffer
	// One more tells whether there are more.
	length := limit + 1
	if err := Read(path, false, 0, &length, &out); err != nil {
		return nil, err
	}
	if int64(out.Len()) > limit {
		return nil, fileError(&os.PathError{Op: "read", Path: path, Err: syscall.EFBIG}, "%.256q is longer than %d bytes.", path, limit)
	}
	return out.Bytes(), nil
}

// maxSmall is the longest content of a reply that is no stream.
const maxSmall = 1 << 20

// WriteOptions say how a file is written.
type WriteOptions struct {
	// Mode nil: the old file's, else 0644.
	Mode *int64
	// InPlace: the old file itself is cut and filled, so that its number, its hard links and its watchers stay.
	InPlace bool
	// Attributes that the file has at the end; nil: as they come.
	Attributes *wire.Attributes
}

// Write puts in's bytes into path: a temporary sibling is renamed over it at
// the end, unless in place. A symlink is written through, as cp does; a device or fifo is
// written as it is.
func Write(path string, o WriteOptions, in io.Reader) error {
	final := path
	fail := func(err error) error { return fileError(err, "%.256q cannot be written.", path) }
	old, err := os.Stat(path)
	switch {
	case err == nil && old.IsDir():
		return fail(syscall.EISDIR)
	case err == nil && !old.Mode().IsRegular():
		return writeSpecial(path, in)
	case err == nil:
		if final, err = filepath.EvalSymlinks(path); err != nil {
			return fail(err)
		}
		// Renaming needs rights on the directory only: the file's own count too.
		f, err := os.OpenFile(final, syscall.O_WRONLY, 0)
		if err != nil && !errors.Is(err, syscall.ETXTBSY) {
			return fail(err)
		}
		if err == nil {
			_ = f.Close() // nothing was written
		}
	case !errors.Is(err, os.ErrNotExist):
		return fail(err)
	}
	if o.InPlace {
		return writeInPlace(final, o, in)
	}
	perm := uint32(0o644)
	if old != nil {
		perm = old.Sys().(*syscall.Stat_t).Mode & 0o7777
	}
	if o.Mode != nil {
		perm = uint32(*o.Mode)
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails on Linux
	tmp := filepath.Join(filepath.Dir(final), ".vmsan-write-"+hex.EncodeToString(id[:]))
	f, err := os.OpenFile(tmp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fail(err)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, in, make([]byte, 128<<10))
	if err == nil && old != nil {
		st := old.Sys().(*syscall.Stat_t)
		// Without the right to give it away the file becomes the writer's, as with any replacement.
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = syscall.Fchmod(int(f.Fd()), perm)
	}
	if err == nil {
		err = setAttributes(f, o.Attributes)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, final)
	}
	if err != nil {
		_ = os.Remove(tmp) // the first failure is the one to report
		return fail(err)
	}
	return nil
}

// writeInPlace cuts the file, or makes it, and fills it.
func writeInPlace(path string, o WriteOptions, in io.Reader) error {
	f, err := os.OpenFile(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC, 0o644)
	if err == nil && o.Mode != nil {
		err = syscall.Fchmod(int(f.Fd()), uint32(*o.Mode))
	}
	if err == nil {
		err = setAttributes(f, o.Attributes)
	}
	if err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, in, make([]byte, 128<<10))
	}
	if f != nil {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fileError(err, "%.256q cannot be written.", path)
	}
	return nil
}

func writeSpecial(path string, in io.Reader) error {
	f, err := os.OpenFile(path, syscall.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err == nil {
		_, err = io.Copy(struct{ io.Writer }{f}, in)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fileError(err, "%.256q cannot be written.", path)
	}
	return nil
}
