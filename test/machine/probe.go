// Command probe uses, as the only program of an image, what a whole machine has:
// device nodes, virtual network cards, packet filter, file systems. Each word of
// its command line is one thing to try; it prints what came of it.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"unsafe"
)

var native = binary.LittleEndian

// attr is one netlink attribute.
func attr(kind uint16, value []byte) []byte {
	b := native.AppendUint16(nil, uint16(4+len(value)))
	b = append(native.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func nest(kind uint16, parts ...[]byte) []byte {
	return attr(kind|0x8000, bytes.Join(parts, nil))
}

func text(s string) []byte { return append([]byte(s), 0) }

func big(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// message is one netlink message.
func message(kind, flags uint16, seq uint32, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	b := native.AppendUint32(nil, uint32(16+len(body)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, flags|syscall.NLM_F_REQUEST)
	b = native.AppendUint32(b, seq)
	return append(append(b, 0, 0, 0, 0), body...)
}

// ask sends messages and waits for so many acknowledgements.
func ask(protocol int, acks int, messages ...[]byte) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := syscall.Sendto(fd, bytes.Join(messages, nil), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	for buf := make([]byte, 1<<16); acks > 0; {
		n, _, err := syscall.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		replies, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return err
		}
		for _, reply := range replies {
			if reply.Header.Type != syscall.NLMSG_ERROR {
				continue
			}
			if code := int32(native.Uint32(reply.Data)); code != 0 {
				return syscall.Errno(-code)
			}
			acks--
		}
	}
	return nil
}

const create = syscall.NLM_F_CREATE | syscall.NLM_F_EXCL | syscall.NLM_F_ACK

func link(kind string) error {
	return ask(syscall.NETLINK_ROUTE, 1, message(syscall.RTM_NEWLINK, create, 1, make([]byte, 16),
		attr(syscall.IFLA_IFNAME, text("p"+kind)), nest(syscall.IFLA_LINKINFO, attr(1, text(kind)))))
}

// masquerade makes what `nft add rule nat post masquerade` and its table need.
func masquerade() error {
	head := func(family byte, id uint16) []byte { return binary.BigEndian.AppendUint16([]byte{family, 0}, id) }
	const nft = 10 << 8
	hook := nest(4, attr(1, big(4)), attr(2, big(100)))
	masq := nest(4, nest(1, attr(1, text("masq")), nest(2)))
	return ask(12, 3,
		message(0x10, 0, 1, head(0, 10)),
		message(nft|0, create, 2, head(2, 0), attr(1, text("t"))),
		message(nft|3, create, 3, head(2, 0), attr(1, text("t")), attr(3, text("c")), hook, attr(7, text("nat"))),
		message(nft|6, create|syscall.NLM_F_APPEND, 4, head(2, 0), attr(1, text("t")), attr(2, text("c")), masq),
		message(0x11, 0, 5, head(0, 10)))
}

func tun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var request [40]byte
	copy(request[:], "tun0")
	native.PutUint16(request[16:], 0x1001) // IFF_TUN, IFF_NO_PI
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), 0x400454ca, uintptr(unsafe.Pointer(&request))); e != 0 {
		return e
	}
	return nil
}

func fuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/fuse", 0o755); err != nil {
		return err
	}
	return syscall.Mount("probe", "/fuse", "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", f.Fd()))
}

// overlay mounts an overlay whose upper directory lies in a directory, and writes to it.
func overlay(in string) error {
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(in, name), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(in+"/lower/file", []byte("lower"), 0o644); err != nil {
		return err
	}
	data := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", in, in, in)
	if err := syscall.Mount("overlay", in+"/merged", "overlay", 0, data); err != nil {
		return err
	}
	return os.WriteFile(in+"/merged/file", []byte("upper"), 0o644)
}

func onTmpfs() error {
	if err := os.MkdirAll("/memory", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/memory", "tmpfs", 0, ""); err != nil {
		return err
	}
	return overlay("/memory")
}

// show prints files, modes of paths, or loaded modules.
func show(what string) (string, error) {
	kind, path, _ := strings.Cut(what, ":")
	switch kind {
	case "cat":
		b, err := os.ReadFile(path)
		return strings.TrimSpace(string(b)), err
	case "mode":
		var st syscall.Stat_t
		err := syscall.Stat(path, &st)
		return fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid), err
	case "write":
		return "ok", os.WriteFile(path, []byte("written"), 0o644)
	case "loaded":
		b, err := os.ReadFile("/proc/modules")
		var names []string
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			name, _, _ := strings.Cut(line, " ")
			names = append(names, name)
		}
		sort.Strings(names)
		return strings.Join(names, " "), err
	}
	return "", fmt.Errorf("unknown: %s", what)
}

func main() {
	status := 0
	for _, word := range os.Args[1:] {
		var err error
		said := "ok"
		kind, rest, _ := strings.Cut(word, ":")
		switch kind {
		case "tun":
			err = tun()
		case "fuse":
			err = fuse()
		case "nat":
			err = masquerade()
		case "link":
			err = link(rest)
		case "tmpfs":
			err = onTmpfs()
		case "overlay":
			err = overlay(rest)
		default:
			said, err = show(word)
		}
		if err != nil {
			said, status = err.Error(), 1
		}
		fmt.Printf("%s=%s\n", word, said)
	}
	os.Exit(status)
}
