package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strconv"
	"syscall"

	"vmsan/guest/internal/wire"
)

// regular writes a file of the archive as name in the directory that was entered. By its descriptor alone: in trees of
// small files looking up paths takes longer than anything else.
func (u *untarrer) regular(h *tar.Header, t *tar.Reader, name, full string) error {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_EXCL | syscall.O_NOFOLLOW
	fail := func(err error) error {
		return fileError(err, "%.256q of the archive could not be written.", full)
	}
	fd, err := openAt(u.dir, name, flags, 0o600)
	if errors.Is(err, syscall.EEXIST) {
		if err := clearName(at(u.dir, name), full); err != nil {
			return err
		}
		fd, err = openAt(u.dir, name, flags, 0o600)
	}
	if err != nil {
		return fail(err)
	}
	err = u.fill(fd, h, t)
	if cerr := syscall.Close(fd); err == nil && cerr != nil {
		err = cerr
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		return wire.Errorf(wire.CodeArchive, "The archive ends or breaks in the middle of %.256q.", full).Because(err)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// fill gives a new file its content, owner, mode and time, in this order: changing the owner clears setuid.
func (u *untarrer) fill(fd int, h *tar.Header, t *tar.Reader) error {
	if err := copyFile(fd, t, u.buf, u.opts.Plain || isSparse(h)); err != nil {
		return err
	}
	if u.opts.Owners {
		if err := syscall.Fchown(fd, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if err := u.attributes(h, "/proc/self/fd/"+strconv.Itoa(fd)); err != nil {
		return err
	}
	if err := syscall.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return err
	}
	return futimes(fd, h.ModTime.Unix(), int64(h.ModTime.Nanosecond()))
}

func isSparse(h *tar.Header) bool {
	return h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.size"] != "" ||
		h.PAXRecords["GNU.sparse.realsize"] != ""
}

var zeros [4096]byte

// copyFile writes r to a file by way of buf; a sparse file's blocks of zeros become holes again.
func copyFile(fd int, r io.Reader, buf []byte, sparse bool) error {
	var size int64
	for {
		n, err := io.ReadFull(r, buf)
		for p := buf[:n]; len(p) > 0; {
			k := len(p)
			if sparse {
				k = min(k, len(zeros))
				if bytes.Equal(p[:k], zeros[:k]) {
					size += int64(k)
					p = p[k:]
					continue
				}
			}
			if werr := writeAt(fd, p[:k], size); werr != nil {
				return werr
			}
			size += int64(k)
			p = p[k:]
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF && n < len(buf) && ended(r) {
			break
		}
		if err != nil {
			return err
		}
	}
	if sparse {
		return syscall.Ftruncate(fd, size)
	}
	return nil
}

// ended tells a short last block from a broken archive, which io.ReadFull does not.
func ended(r io.Reader) bool {
	var one [1]byte
	n, err := r.Read(one[:])
	return n == 0 && err == io.EOF
}
