package boot

import (
	"net"
	"os"
	"path/filepath"
	"strings"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/sharewire"
)

// Virtio device numbers.
const (
	virtioConsole = "0x0003"
	virtioVsock   = "0x0013"
)

func hasVirtio(id string) bool {
	paths, err := filepath.Glob("/sys/bus/virtio/devices/*/device")
	if err != nil {
		return false
	}
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == id {
			return true
		}
	}
	return false
}

// OpenChannel finds the way to the host: a port or a listener, the other is nil.
func (m *Machine) OpenChannel() (*channel.Port, net.Listener, error) {
	if m.port != nil {
		return m.port, nil, nil
	}
	found := waitFor(func() string {
		if m.Params.Channel != "vsock" && hasVirtio(virtioConsole) {
			if dev := channel.FindPort(channel.PortName); dev != "" {
				return dev
			}
			if m.Params.Channel == "" && hasVirtio(virtioVsock) {
				return "vsock"
			}
			return ""
		}
		if m.Params.Channel != "virtio" && hasVirtio(virtioVsock) {
			return "vsock"
		}
		return ""
	})
	switch found {
	case "":
		return nil, nil, fail(CodeChannel, nil, "the VM has no virtio-serial port named %s and no vsock device", channel.PortName)
	case "vsock":
		l, err := channel.ListenVsock(channel.VsockPort)
		if err != nil {
			return nil, nil, fail(CodeChannel, err, "vsock port %d cannot be served", channel.VsockPort)
		}
		return nil, l, nil
	}
	port, err := channel.OpenPort(found)
	if err != nil {
		return nil, nil, fail(CodeChannel, err, "the port %s cannot be opened", found)
	}
	return port, nil, nil
}

// ServeShares takes connections of the host's file server: at a port of its own beside the
// channel's, or on the vsock device.
func (m *Machine) ServeShares(pin *channel.Pin, serve func(net.Conn) channel.Taker) error {
	if dev := channel.FindPort(sharewire.PortName); dev != "" {
		port, err := channel.OpenPort(dev)
		if err != nil {
			return fail(CodeChannel, err, "the port %s cannot be opened", dev)
		}
		go channel.RunDirect(port.Unannounced(), pin, serve) // it ends with the VM
		return nil
	}
	if !hasVirtio(virtioVsock) {
		return fail(CodeChannel, nil, "the VM has no virtio-serial port named %s and no vsock device", sharewire.PortName)
	}
	l, err := channel.ListenVsock(sharewire.Port)
	if err != nil {
		return fail(CodeChannel, err, "vsock port %d cannot be served", sharewire.Port)
	}
	go channel.ListenDirect(l, pin, serve) // likewise
	return nil
}
