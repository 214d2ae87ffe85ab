package client

import (
	"os"
	"syscall"
	"unsafe"
)

// size of a terminal, as the kernel has it.
type size struct {
	Rows, Cols, x, y uint16
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) bool {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno == 0
}

// isTerminal tells whether a descriptor is a terminal.
func isTerminal(fd int) bool {
	var t syscall.Termios
	return ioctl(fd, syscall.TCGETS, unsafe.Pointer(&t))
}

// terminalSize is the size of the terminal at standard output; 24×80 where there is none.
func terminalSize() size {
	var s size
	if !ioctl(1, syscall.TIOCGWINSZ, unsafe.Pointer(&s)) {
		s = size{}
	}
	if s.Rows == 0 {
		s.Rows = 24
	}
	if s.Cols == 0 {
		s.Cols = 80
	}
	return s
}

// columnsOf is the width of the terminal at a descriptor; 80 where it is not known.
func columnsOf(fd int) int {
	var s size
	if ioctl(fd, syscall.TIOCGWINSZ, unsafe.Pointer(&s)) && s.Cols > 0 {
		return int(s.Cols)
	}
	return 80
}

// rawTerminal makes every key of the terminal at standard input go to the guest; the function puts it back.
func rawTerminal() (restore func()) {
	var before syscall.Termios
	fd := int(os.Stdin.Fd())
	if !ioctl(fd, syscall.TCGETS, unsafe.Pointer(&before)) {
		return func() {}
	}
	raw := before
	raw.Iflag &^= syscall.BRKINT | syscall.ICRNL | syscall.INPCK | syscall.ISTRIP | syscall.IXON
	raw.Oflag |= syscall.ONLCR
	raw.Cflag |= syscall.CS8
	raw.Lflag &^= syscall.ECHO | syscall.ICANON | syscall.IEXTEN | syscall.ISIG
	raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
	ioctl(fd, syscall.TCSETS, unsafe.Pointer(&raw))
	return func() { ioctl(fd, syscall.TCSETS, unsafe.Pointer(&before)) }
}

const ctrlP, ctrlQ = 0x10, 0x11

// detachKeys finds ctrl-p ctrl-q in what is typed; a ctrl-p that something else follows is passed on.
type detachKeys struct {
	detached, pending bool
}

// filter gives the bytes to pass on.
func (k *detachKeys) filter(typed []byte) []byte {
	passed := make([]byte, 0, len(typed)+1)
	for _, key := range typed {
		if k.detached {
			break
		}
		if k.pending {
			k.pending = false
			if key == ctrlQ {
				k.detached = true
				break
			}
			passed = append(passed, ctrlP)
		}
		if key == ctrlP {
			k.pending = true
		} else {
			passed = append(passed, key)
		}
	}
	return passed
}
