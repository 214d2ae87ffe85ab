package proc

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// OpenPTY makes a terminal pair; the slave belongs to u.
func OpenPTY(rows, cols uint16, u *User) (master, slave *os.File, err error) {
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	fail := func(err error) (*os.File, *os.File, error) {
		_ = master.Close()
		return nil, nil, err
	}
	var unlock, n int32
	if err := ioctl(fd, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		return fail(err)
	}
	if err := ioctl(fd, syscall.TIOCGPTN, unsafe.Pointer(&n)); err != nil {
		return fail(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	sfd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fail(&os.PathError{Op: "open", Path: name, Err: err})
	}
	slave = os.NewFile(uintptr(sfd), name)
	if os.Getuid() == 0 {
		// As sshd does: group tty where devpts has set it, so only the owner matters.
		if err := syscall.Fchown(sfd, int(u.UID), -1); err != nil {
			_ = slave.Close()
			return fail(err)
		}
	}
	if rows > 0 && cols > 0 {
		if err := SetSize(fd, rows, cols); err != nil {
			_ = slave.Close()
			return fail(err)
		}
	}
	setUTF8(sfd)
	return master, slave, nil
}

// SetSize sets a terminal's size; the kernel tells its foreground group.
func SetSize(fd int, rows, cols uint16) error {
	ws := [4]uint16{rows, cols, 0, 0}
	return ioctl(fd, syscall.TIOCSWINSZ, unsafe.Pointer(&ws))
}

// Foreground gives the terminal's foreground process group, 0 if it has none.
func Foreground(fd int) int {
	var pgrp int32
	if ioctl(fd, syscall.TIOCGPGRP, unsafe.Pointer(&pgrp)) != nil {
		return 0
	}
	return int(pgrp)
}

// EOFByte gives the terminal's end-of-file character when it reads by lines.
func EOFByte(fd int) (byte, bool) {
	var t syscall.Termios
	if ioctl(fd, syscall.TCGETS, unsafe.Pointer(&t)) != nil {
		return 0, false
	}
	return t.Cc[syscall.VEOF], t.Lflag&syscall.ICANON != 0
}

// setUTF8 makes erasing in line mode take whole characters.
func setUTF8(fd int) {
	var t syscall.Termios
	if ioctl(fd, syscall.TCGETS, unsafe.Pointer(&t)) == nil {
		t.Iflag |= syscall.IUTF8
		// A terminal without it only erases bytewise.
		_ = ioctl(fd, syscall.TCSETS, unsafe.Pointer(&t))
	}
}

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}
