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

// packetLog is one log of a VM's, from the moment it is asked for.
type packetLog struct {
	vm string
	id int64
	// after is closed once the log before it has let go of the group, which one at a time may have.
	after <-chan struct{}
	// done is closed once this one has.
	done chan struct{}

	mu    sync.Mutex
	file  *os.File
	ended bool
}

// logs are VMs' last packet logs, until they are closed.
type logs struct {
	mu   sync.Mutex
	out  *channel
	byVm map[string]*packetLog
	// open gives a socket that receives a namespace's log group.
	open func(netns string, group uint16) (*os.File, error)
}

func newLogs(out *channel) *logs {
	return &logs{out: out, byVm: map[string]*packetLog{}, open: openLog}
}

// buffers for one message of the kernel each, which are in use only while it is read.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// expect notes that a VM's log is to be started, in place of an earlier one. To be called in the order of the
// requests, as stop is: those are carried out in any order.
func (l *logs) expect(vm string, id int64) *packetLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := &packetLog{vm: vm, id: id, done: make(chan struct{})}
	if before := l.byVm[vm]; before != nil {
		log.after = before.done
		l.end(before)
	}
	l.byVm[vm] = log
	return log
}

// stop ends a VM's log, if it is still that one.
func (l *logs) stop(vm string, id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if log := l.byVm[vm]; log != nil && log.id == id {
		l.end(log)
	}
}

// end closes a log, now or when it turns out to be open.
func (l *logs) end(log *packetLog) {
	log.mu.Lock()
	defer log.mu.Unlock()
	if !log.ended && log.file != nil {
		go l.close(log, log.file)
	}
	log.ended = true
}

// close lets go of a log's group.
func (l *logs) close(log *packetLog, file *os.File) {
	if file != nil {
		file.Close()
	}
	close(log.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byVm[log.vm] == log {
		delete(l.byVm, log.vm)
	}
}

// hold takes the open file over, unless the log has been ended meanwhile.
func (p *packetLog) hold(file *os.File) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.file = file
	}
	return !p.ended
}

// start reads a namespace's log group until stop.
func (l *logs) start(log *packetLog, netns string, group uint16) error {
	if log.after != nil {
		<-log.after
	}
	file, err := l.open(netns, group)
	var raw syscall.RawConn
	if err == nil {
		raw, err = file.SyscallConn()
	}
	if err == nil && log.hold(file) {
		go l.read(log.vm, raw)
		return nil
	}
	l.close(log, file)
	return err
}

// openLog makes a socket that receives a namespace's log group.
func openLog(netns string, group uint16) (*os.File, error) {
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
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		if fd >= 0 {
			syscall.Close(fd)
		}
		return nil, err
	}
	// Waited for by Go's poller: each that is read in a system call of its own would keep a thread.
	return os.NewFile(uintptr(fd), "nflog"), nil
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
