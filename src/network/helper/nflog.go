package main

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
)

// Constants of linux/netfilter/nfnetlink_log.h.
const (
	netlinkNetfilter = 12
	subsysUlog       = 4
	msgPacket        = 0
	msgConfig        = 1
	attrCfgCmd       = 1
	attrCfgMode      = 2
	cfgCmdBind       = 1
	copyPacket       = 2
	attrCfgTimeout   = 4
	attrPayload      = 9
	attrPrefix       = 10
	copyRange        = 80
)

// flow is one logged packet, as the daemon is told of it.
type flow struct {
	Event    string `json:"event"`
	Vm       string `json:"vm"`
	Prefix   string `json:"prefix"`
	Protocol int    `json:"protocol"`
	Address  string `json:"address"`
	Port     int    `json:"port,omitempty"`
}

// logs are the packet logs being read, by VM.
type logs struct {
	mu   sync.Mutex
	out  *channel
	byVm map[string]*os.File
}

func newLogs(out *channel) *logs { return &logs{out: out, byVm: map[string]*os.File{}} }

// buffers for one message of the kernel each, which are in use only while it is read.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// start reads a namespace's log group until stop.
func (l *logs) start(vm, netns string, group uint16) error {
	fd := -1
	err := inNetns(netns, func() error {
		var err error
		fd, err = syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkNetfilter)
		if err != nil {
			return err
		}
		if err = syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
			return err
		}
		if err = configure(fd, group, attrCfgCmd, []byte{cfgCmdBind}); err != nil {
			return err
		}
		mode := make([]byte, 6)
		binary.BigEndian.PutUint32(mode, copyRange)
		mode[4] = copyPacket
		if err = configure(fd, group, attrCfgMode, mode); err != nil {
			return err
		}
		// In hundredths of a second: how long the kernel may gather packets.
		return configure(fd, group, attrCfgTimeout, []byte{0, 0, 0, 5})
	})
	if err != nil {
		if fd >= 0 {
			syscall.Close(fd)
		}
		return err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return err
	}
	// Waited for by Go's poller: each that is read in a system call of its own would keep a thread.
	file := os.NewFile(uintptr(fd), "nflog")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return err
	}
	l.mu.Lock()
	before := l.byVm[vm]
	l.byVm[vm] = file
	l.mu.Unlock()
	if before != nil {
		before.Close()
	}
	go l.read(vm, raw)
	return nil
}

// stop ends a VM's log.
func (l *logs) stop(vm string) {
	l.mu.Lock()
	file := l.byVm[vm]
	delete(l.byVm, vm)
	l.mu.Unlock()
	if file != nil {
		file.Close()
	}
}

// read forwards packets until the log is closed.
func (l *logs) read(vm string, raw syscall.RawConn) {
	for {
		events, err := receive(raw)
		for _, event := range events {
			event.Vm = vm
			l.out.send(event, -1)
		}
		if err != nil {
			return
		}
	}
}

// receive waits for the kernel's next message and gives the packets in it.
func receive(raw syscall.RawConn) ([]flow, error) {
	var events []flow
	var failure error
	err := raw.Read(func(fd uintptr) bool {
		buffer := buffers.Get().(*[64 << 10]byte)
		defer buffers.Put(buffer)
		n, _, err := syscall.Recvfrom(int(fd), buffer[:], 0)
		switch err {
		case nil:
			events = packets(buffer[:n])
		case syscall.EAGAIN:
			return false
		case syscall.EINTR, syscall.ENOBUFS: // lines were lost, which the log's bounds allow
		default:
			failure = err
		}
		return true
	})
	if err == nil {
		err = failure
	}
	return events, err
}

// packets gives those of a message that can be read.
func packets(message []byte) []flow {
	var events []flow
	messages, err := syscall.ParseNetlinkMessage(message)
	if err != nil {
		return nil
	}
	for _, one := range messages {
		if one.Header.Type == subsysUlog<<8|msgPacket {
			if event, ok := decode(one.Data); ok {
				events = append(events, event)
			}
		}
	}
	return events
}

// configure sends one configuration message for a group.
func configure(fd int, group uint16, attribute uint16, value []byte) error {
	length := 4 + len(value)
	padded := (length + 3) &^ 3
	message := make([]byte, 16+4+padded)
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], subsysUlog<<8|msgConfig)
	binary.NativeEndian.PutUint16(message[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	binary.BigEndian.PutUint16(message[18:], group)
	binary.NativeEndian.PutUint16(message[20:], uint16(length))
	binary.NativeEndian.PutUint16(message[22:], attribute)
	copy(message[24:], value)
	return exchange(fd, message)
}

// exchange sends a netlink message and waits for its acknowledgement.
func exchange(fd int, message []byte) error {
	if err := syscall.Sendto(fd, message, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return syscall.Errno(-code)
			}
		}
	}
	return nil
}

// decode reads the log prefix and the packet's destination.
func decode(data []byte) (flow, bool) {
	event := flow{Event: "flow"}
	if len(data) < 4 {
		return event, false
	}
	var payload []byte
	for rest := data[4:]; len(rest) >= 4; {
		length := int(binary.NativeEndian.Uint16(rest))
		kind := binary.NativeEndian.Uint16(rest[2:]) & 0x7fff
		if length < 4 || length > len(rest) {
			break
		}
		switch kind {
		case attrPrefix:
			event.Prefix = strings.TrimRight(string(rest[4:length]), "\x00")
		case attrPayload:
			payload = rest[4:length]
		}
		next := (length + 3) &^ 3
		if next > len(rest) {
			break
		}
		rest = rest[next:]
	}
	return event, event.Prefix != "" && destination(payload, &event)
}

// destination reads address, protocol and port out of an IP packet's beginning.
func destination(packet []byte, event *flow) bool {
	var transport []byte
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		header := int(packet[0]&15) * 4
		event.Protocol = int(packet[9])
		event.Address = netip.AddrFrom4([4]byte(packet[16:20])).String()
		if len(packet) > header {
			transport = packet[header:]
		}
	case len(packet) >= 40 && packet[0]>>4 == 6:
		event.Protocol = int(packet[6])
		event.Address = netip.AddrFrom16([16]byte(packet[24:40])).String()
		transport = packet[40:]
	default:
		return false
	}
	if (event.Protocol == syscall.IPPROTO_TCP || event.Protocol == syscall.IPPROTO_UDP) && len(transport) >= 4 {
		event.Port = int(binary.BigEndian.Uint16(transport[2:]))
	}
	return true
}
