package sshd

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Special characters by their number in RFC 4254, section 8.
var characters = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT, 18: unix.VDISCARD,
}

// Flags by their number there and in RFC 8160.
var (
	inputFlags = map[byte]uint32{
		30: unix.IGNPAR, 31: unix.PARMRK, 32: unix.INPCK, 33: unix.ISTRIP, 34: unix.INLCR, 35: unix.IGNCR, 36: unix.ICRNL,
		37: unix.IUCLC, 38: unix.IXON, 39: unix.IXANY, 40: unix.IXOFF, 41: unix.IMAXBEL, 42: unix.IUTF8,
	}
	localFlags = map[byte]uint32{
		50: unix.ISIG, 51: unix.ICANON, 52: unix.XCASE, 53: unix.ECHO, 54: unix.ECHOE, 55: unix.ECHOK, 56: unix.ECHONL,
		57: unix.NOFLSH, 58: unix.TOSTOP, 59: unix.IEXTEN, 60: unix.ECHOCTL, 61: unix.ECHOKE, 62: unix.PENDIN,
	}
	outputFlags = map[byte]uint32{
		70: unix.OPOST, 71: unix.OLCUC, 72: unix.ONLCR, 73: unix.OCRNL, 74: unix.ONOCR, 75: unix.ONLRET,
	}
	controlFlags = map[byte]uint32{92: unix.PARENB, 93: unix.PARODD}
)

// setModes gives a terminal the modes of the client's. What it cannot take stays as it is.
func setModes(f *os.File, modes string) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a terminal keeps its own modes
		t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil {
			return
		}
		apply(t, modes)
		_ = unix.IoctlSetTermios(int(fd), unix.TCSETS, t) // as above
	})
}

// apply reads opcodes with arguments of four bytes, up to the end or the first opcode of another shape.
func apply(t *unix.Termios, modes string) {
	for b := []byte(modes); len(b) >= 5 && b[0] != 0 && b[0] < 160; b = b[5:] {
		value := binary.BigEndian.Uint32(b[1:5])
		if at, ok := characters[b[0]]; ok {
			// 255 is a character that the client's terminal has not.
			if t.Cc[at] = byte(value); value == 255 {
				t.Cc[at] = 0
			}
			continue
		}
		for _, group := range []struct {
			flags map[byte]uint32
			word  *uint32
		}{{inputFlags, &t.Iflag}, {localFlags, &t.Lflag}, {outputFlags, &t.Oflag}, {controlFlags, &t.Cflag}} {
			if flag, ok := group.flags[b[0]]; ok && value != 0 {
				*group.word |= flag
			} else if ok {
				*group.word &^= flag
			}
		}
		if b[0] == 90 || b[0] == 91 {
			t.Cflag &^= unix.CSIZE
			t.Cflag |= unix.CS8
		}
	}
}
