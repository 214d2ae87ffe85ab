package run

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const readSize = 128 << 10

var readBuffers = sync.Pool{New: func() any {
	b := make([]byte, readSize)
	return &b
}}

// drain reads one output of a command. It takes a buffer only once there is
// something to read, so that an idle command costs none.
type drain struct {
	file *os.File
	out  io.Writer
	eof  bool
}

// pump copies until the output's end, or until it is interrupted by a deadline
// and nothing is left in it.
func (d *drain) pump() {
	raw, err := d.file.SyscallConn()
	if err != nil {
		d.eof = true
		return
	}
	for {
		var buf *[]byte
		var n int
		var rerr error
		werr := raw.Read(func(fd uintptr) bool {
			buf, n, rerr = readNow(int(fd))
			return !errors.Is(rerr, syscall.EAGAIN)
		})
		if errors.Is(werr, os.ErrDeadlineExceeded) {
			d.leftover(raw)
			return
		}
		if werr != nil || !d.pass(buf, n, rerr) {
			d.eof = true
			return
		}
	}
}

// leftover takes what is in the pipe now, bounded, since somebody else still holds its other end.
func (d *drain) leftover(raw syscall.RawConn) {
	for total := 0; total < maxLeftover; {
		var buf *[]byte
		var n int
		var rerr error
		if err := raw.Control(func(fd uintptr) { buf, n, rerr = readNow(int(fd)) }); err != nil {
			d.eof = true
			return
		}
		if errors.Is(rerr, syscall.EAGAIN) {
			return
		}
		if !d.pass(buf, n, rerr) {
			d.eof = true
			return
		}
		total += n
	}
}

// pass writes what was read to the stream; false at the end. EIO is how a
// terminal ends.
func (d *drain) pass(buf *[]byte, n int, err error) bool {
	if buf != nil {
		defer readBuffers.Put(buf)
	}
	if err != nil || n <= 0 {
		return false
	}
	_, werr := d.out.Write((*buf)[:n])
	if werr != nil {
		// As with any pipe whose reader has left: the writer gets SIGPIPE.
		_ = d.file.Close()
	}
	return werr == nil
}

// release closes the output at its end. When a process that the command left
// behind still has it, it goes on being read and thrown away: closing it would
// kill that process by SIGPIPE.
func (d *drain) release() {
	if d.eof {
		_ = d.file.Close() // everything has been read
		return
	}
	go func() {
		defer d.file.Close()
		if d.file.SetReadDeadline(time.Time{}) != nil {
			return
		}
		// The error is the output's end.
		_, _ = io.Copy(io.Discard, onlyReader{d.file})
	}()
}

// onlyReader keeps io.Copy from taking a shortcut of *os.File's.
type onlyReader struct{ io.Reader }

// readNow reads without waiting. The buffer is nil unless something was read.
func readNow(fd int) (*[]byte, int, error) {
	buf := readBuffers.Get().(*[]byte)
	for {
		n, err := syscall.Read(fd, *buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			readBuffers.Put(buf)
			return nil, 0, err
		}
		return buf, n, nil
	}
}
