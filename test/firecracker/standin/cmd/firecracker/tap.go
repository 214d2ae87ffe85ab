package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

const (
	tunSetIff       = 0x400454ca
	tunSetVnetHdrSz = 0x400454d8
	iffTap          = 0x0002
	iffNoPI         = 0x1000
	iffVnetHdr      = 0x4000
	// vnetHdrSize is that of virtio 1 devices; both taps have it, so that frames pass unchanged.
	vnetHdrSize = 12
)

// tap is a network device: what is written there the host receives.
type tap struct{ file *os.File }

// ioctl makes a call with a structure as its argument.
func ioctl(fd int, call uintptr, argument unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), call, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// request is the kernel's struct ifreq: a name and what is asked for.
type request struct {
	name [16]byte
	data [24]byte
}

func requestFor(name string) (r request) {
	copy(r.name[:15], name)
	return r
}

// openTap attaches to a tap as whoever runs this process, with the kernel's own answer to it. The
// kernel would make one that is missing for those who may, and refuses others.
func openTap(name string) (*tap, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("Couldn't open /dev/net/tun: %s", osError(err))
	}
	if len(name) > 15 {
		syscall.Close(fd)
		return nil, errors.New("Invalid interface name")
	}
	r := requestFor(name)
	binary.NativeEndian.PutUint16(r.data[:], iffTap|iffNoPI|iffVnetHdr)
	if err := ioctl(fd, tunSetIff, unsafe.Pointer(&r)); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("Error while creating ifreq structure: %s. Invalid TUN/TAP Backend provided by %s. Check our documentation on setting up the network devices.", osError(err), name)
	}
	size := int32(vnetHdrSize)
	if err := ioctl(fd, tunSetVnetHdrSz, unsafe.Pointer(&size)); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("Error while setting size of the vnet header: %s", osError(err))
	}
	return &tap{os.NewFile(uintptr(fd), name)}, nil
}

// carry moves frames one way until a side is gone; none while hold holds.
func carry(from, to *tap, hold func()) {
	frame := make([]byte, 1<<17)
	for {
		n, err := from.file.Read(frame)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		hold()
		// EIO while the other side is down: the frame is lost, as on a cable.
		_, _ = to.file.Write(frame[:n])
	}
}

// guestRole as the first argument makes this program a guest's first step: see becomeGuest.
const guestRole = "--standin-guest"

// unknownUser is the number of a user who has none in a user namespace.
const unknownUser = 65534

// netCapabilities of the guest in its network: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW.
var netCapabilities = []uintptr{10, 12, 13}

// inNetwork makes a command a guest with a network of its own behind the tap: in user and network
// namespaces where it has one card. Its user has no number there (a jail has no /proc to give it
// one by), so that it is 65534 to itself and the jail's to everybody else.
func inNetwork(cmd *exec.Cmd, mac string) (guestEnd *os.File, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	program := cmd.Path
	cmd.Path = os.Args[0]
	cmd.Args = append([]string{os.Args[0], guestRole, mac, program}, cmd.Args[1:]...)
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "card")}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
	cmd.SysProcAttr.AmbientCaps = netCapabilities
	return os.NewFile(uintptr(pair[0]), "card"), nil
}

// receiveCard takes the guest's end of the cable from its first step.
func receiveCard(from *os.File) (*tap, error) {
	defer from.Close()
	control := make([]byte, syscall.CmsgSpace(4))
	said := make([]byte, 500)
	n, length, _, _, err := syscall.Recvmsg(int(from.Fd()), said, control, 0)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(control[:length])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("the guest has no network card: %s", said[:n])
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	return &tap{os.NewFile(uintptr(fds[0]), "eth0")}, nil
}

// becomeGuest makes the card, hands it to the VMM at descriptor 3 and becomes the agent.
func becomeGuest(args []string) {
	runtime.LockOSThread()
	mac, program := args[0], args[1]
	fail := func(what string, err error) {
		if err != nil {
			_ = syscall.Sendto(3, fmt.Appendf(nil, "%s: %v", what, err), 0, nil)
			os.Exit(exitError)
		}
	}
	card, err := openTap("eth0")
	fail("make eth0", err)
	fail("configure eth0", configure("eth0", mac))
	fail("configure lo", configure("lo", ""))
	fail("give eth0", syscall.Sendmsg(3, []byte("ready"), syscall.UnixRights(int(card.file.Fd())), nil, 0))
	_ = card.file.Close()
	// What the agent's parent has set ends with it, so that nothing of a dead VMM stays.
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	if errno != 0 {
		fail("end with the VMM", errno)
	}
	syscall.CloseOnExec(3)
	fail("start "+program, syscall.Exec(program, append([]string{program}, args[2:]...), os.Environ()))
}

// configure gives a card its address, and brings the loopback device up; cards the agent brings up.
func configure(name, mac string) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	r := requestFor(name)
	if mac == "" {
		binary.NativeEndian.PutUint16(r.data[:], syscall.IFF_UP)
		return ioctl(fd, syscall.SIOCSIFFLAGS, unsafe.Pointer(&r))
	}
	address, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	binary.NativeEndian.PutUint16(r.data[:], syscall.ARPHRD_ETHER)
	copy(r.data[2:], address)
	return ioctl(fd, syscall.SIOCSIFHWADDR, unsafe.Pointer(&r))
}

// osError is an error of the system as Firecracker's language writes it.
func osError(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return fmt.Sprintf("%s (os error %d)", strings.ToUpper(text[:1])+text[1:], int(errno))
}
