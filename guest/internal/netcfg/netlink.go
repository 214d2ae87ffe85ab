package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sort"
	"strings"
	"syscall"
	"unsafe"

	"vmsan/guest/internal/restore"
	"vmsan/guest/internal/wire"
)

// Of linux/if_addr.h and linux/rtnetlink.h, where package syscall has no name.
const (
	ifaFlagNoDAD = 0x02
)

// loopback is the number of lo in each network namespace: the kernel relies on that, too. To ask for it costs more
// than to bring it up.
const loopback = 1

func parseMAC(s string) (net.HardwareAddr, error) {
	m, err := net.ParseMAC(s)
	if err == nil && len(m) != 6 {
		err = errors.New("not 6 bytes")
	}
	return m, err
}

// netlink is a socket for requests that are acknowledged one by one.
type netlink struct {
	fd  int
	seq uint32
}

func openNetlink() (*netlink, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("netlink bind", err)
	}
	return &netlink{fd: fd}, nil
}

func (n *netlink) close() { _ = syscall.Close(n.fd) }

// call sends one request and gives the replies' messages up to its acknowledgement.
func (n *netlink) call(typ uint16, flags uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	n.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, n.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	if err := syscall.Sendto(n.fd, b, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []syscall.NetlinkMessage
	buf := make([]byte, 64<<10)
	for {
		got, _, err := syscall.Recvfrom(n.fd, buf, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		msgs, err := syscall.ParseNetlinkMessage(append([]byte(nil), buf[:got]...))
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if m.Header.Seq != n.seq {
				continue
			}
			switch m.Header.Type {
			case syscall.NLMSG_DONE:
				return out, nil
			case syscall.NLMSG_ERROR:
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return nil, syscall.Errno(-code)
				}
				return out, nil
			default:
				out = append(out, m)
			}
		}
	}
}

// attr adds a routing attribute.
func attr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// setLink changes a link: up or down, and its address or MTU if given.
func (n *netlink) setLink(index int, up bool, mac net.HardwareAddr, mtu int) error {
	info := syscall.IfInfomsg{Family: syscall.AF_UNSPEC, Index: int32(index), Change: syscall.IFF_UP}
	if up {
		info.Flags = syscall.IFF_UP
	}
	b := append([]byte(nil), (*[syscall.SizeofIfInfomsg]byte)(unsafe.Pointer(&info))[:]...)
	if mac != nil {
		b = attr(b, syscall.IFLA_ADDRESS, mac)
	}
	if mtu > 0 {
		b = attr(b, syscall.IFLA_MTU, u32(uint32(mtu)))
	}
	_, err := n.call(syscall.RTM_NEWLINK, 0, b)
	return err
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return syscall.AF_INET
	}
	return syscall.AF_INET6
}

// address adds or deletes one.
func (n *netlink) address(typ uint16, flags uint16, index int, p netip.Prefix) error {
	b := []byte{familyOf(p.Addr()), byte(p.Bits()), 0, 0}
	if p.Addr().Is6() {
		// The host has chosen it: waiting for duplicate detection gains nothing.
		b[2] = ifaFlagNoDAD
	}
	b = append(b, u32(uint32(index))...)
	ip := p.Addr().AsSlice()
	b = attr(b, syscall.IFA_LOCAL, ip)
	b = attr(b, syscall.IFA_ADDRESS, ip)
	if p.Addr().Is4() && p.Bits() < 31 {
		bc := p.Addr().As4()
		host := ^uint32(0) >> p.Bits()
		binary.BigEndian.PutUint32(bc[:], binary.BigEndian.Uint32(bc[:])|host)
		b = attr(b, syscall.IFA_BROADCAST, bc[:])
	}
	_, err := n.call(typ, flags, b)
	return err
}

// defaultRoute sets the way out over gateway.
func (n *netlink) defaultRoute(index int, gateway netip.Addr) error {
	b := []byte{familyOf(gateway), 0, 0, 0, syscall.RT_TABLE_MAIN, syscall.RTPROT_BOOT, syscall.RT_SCOPE_UNIVERSE, syscall.RTN_UNICAST, 0, 0, 0, 0}
	b = attr(b, syscall.RTA_GATEWAY, gateway.AsSlice())
	b = attr(b, syscall.RTA_OIF, u32(uint32(index)))
	_, err := n.call(syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE, b)
	return err
}

// routeFrom leads what goes to a range over gateway, from an address of the link's own. It goes
// by itself when that address does.
func (n *netlink) routeFrom(index int, to netip.Prefix, gateway, source netip.Addr) error {
	b := []byte{syscall.AF_INET, byte(to.Bits()), 0, 0, syscall.RT_TABLE_MAIN, syscall.RTPROT_BOOT, syscall.RT_SCOPE_UNIVERSE, syscall.RTN_UNICAST, 0, 0, 0, 0}
	b = attr(b, syscall.RTA_DST, to.Addr().AsSlice())
	b = attr(b, syscall.RTA_GATEWAY, gateway.AsSlice())
	b = attr(b, syscall.RTA_OIF, u32(uint32(index)))
	b = attr(b, syscall.RTA_PREFSRC, source.AsSlice())
	_, err := n.call(syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE, b)
	return err
}

// addressesOf lists the addresses of a link, link-local IPv6 left out.
func (n *netlink) addressesOf(index int) ([]netip.Prefix, error) {
	msgs, err := n.call(syscall.RTM_GETADDR, syscall.NLM_F_DUMP, []byte{syscall.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0})
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, m := range msgs {
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < 8 || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, err
		}
		var addr netip.Addr
		for _, a := range attrs {
			if a.Attr.Type == syscall.IFA_LOCAL || a.Attr.Type == syscall.IFA_ADDRESS && !addr.IsValid() {
				if ip, ok := netip.AddrFromSlice(a.Value); ok {
					addr = ip
				}
			}
		}
		if addr.IsValid() && !(addr.Is6() && addr.IsLinkLocalUnicast()) {
			out = append(out, netip.PrefixFrom(addr, int(m.Data[1])))
		}
	}
	return out, nil
}

// LoopbackUp brings lo up.
func LoopbackUp() error {
	n, err := openNetlink()
	if err != nil {
		return err
	}
	defer n.close()
	return n.setLink(loopback, true, nil, 0)
}

// cutConnections resets what leaves the machine, with every card down: the other
// ends are the parent's and must not hear of it.
func cutConnections() error {
	if restore.NoneLeaves() {
		return nil
	}
	n, err := openNetlink()
	if err != nil {
		return err
	}
	defer n.close()
	cards, err := ethernetCards()
	if err != nil {
		return err
	}
	var own []netip.Addr
	for _, l := range cards {
		addresses, err := n.addressesOf(l.Index)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		for _, p := range addresses {
			own = append(own, p.Addr())
		}
		if err := n.setLink(l.Index, false, nil, 0); err != nil {
			return fmt.Errorf("%s down: %w", l.Name, err)
		}
	}
	restore.ResetConnections(own)
	return nil
}

// applied is what a network was made of: whoever comes out of a file with it need not ask the kernel, which in an
// emulated guest is half of the work.
type applied struct {
	network *Network
	// card is the index of its only card, 0 if it has none or several.
	card int
}

// applyNetwork makes each interface have exactly the addresses given.
// last is what was applied before, if nobody but the agent can have changed cards since; else nil.
func applyNetwork(cfg *Network, last *applied) (*applied, error) {
	n, err := openNetlink()
	if err != nil {
		return nil, err
	}
	defer n.close()
	now := &applied{network: cfg}
	only := len(cfg.Interfaces) == 1
	for i := range cfg.Interfaces {
		want := &cfg.Interfaces[i]
		index := 0
		if only && last != nil && last.card != 0 {
			// A card that is not there under its number any more is looked for.
			if err := n.applyRemembered(want, last); err == nil {
				index = last.card
			}
		}
		if index == 0 {
			index, err = n.applyInterface(want, only)
		}
		if err != nil {
			return nil, wire.Errorf(wire.CodeConfig, "The network interface %s could not be set up.", want.MAC).Because(err)
		}
		if only {
			now.card = index
		}
	}
	return now, nil
}

// applyRemembered sets up the only card as it was left by last.
func (n *netlink) applyRemembered(want *Interface, last *applied) error {
	mac, err := parseMAC(want.MAC)
	if err != nil {
		return err
	}
	var old []netip.Prefix
	for _, a := range last.network.Interfaces[0].Addresses {
		old = append(old, netip.MustParsePrefix(a))
	}
	return n.setUp(net.Interface{Index: last.card, Flags: net.FlagUp}, mac, want, old)
}

// applyInterface finds a card and sets it up. It gives its index.
func (n *netlink) applyInterface(want *Interface, only bool) (int, error) {
	mac, err := parseMAC(want.MAC)
	if err != nil {
		return 0, err
	}
	link, err := findLink(mac, only)
	if err != nil {
		return 0, err
	}
	old, err := n.addressesOf(link.Index)
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	return link.Index, n.setUp(*link, mac, want, old)
}

// setUp gives a card its address, MTU, routes, and of the addresses that it has only those that it is to have.
func (n *netlink) setUp(link net.Interface, mac net.HardwareAddr, want *Interface, old []netip.Prefix) error {
	wasUp := link.Flags&net.FlagUp != 0
	if link.HardwareAddr.String() != mac.String() {
		// Taking down one that is down is work for the kernel all the same.
		if wasUp {
			if err := n.setLink(link.Index, false, nil, 0); err != nil {
				return fmt.Errorf("link down: %w", err)
			}
		}
		if err := n.setLink(link.Index, false, mac, 0); err != nil {
			return fmt.Errorf("set MAC: %w", err)
		}
	}
	if err := n.setLink(link.Index, true, nil, want.MTU); err != nil {
		return fmt.Errorf("link up: %w", err)
	}
	keep := map[netip.Prefix]bool{}
	for _, a := range want.Addresses {
		keep[netip.MustParsePrefix(a)] = true
	}
	for _, p := range old {
		if !keep[p] {
			if err := n.address(syscall.RTM_DELADDR, 0, link.Index, p); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
				return fmt.Errorf("remove %s: %w", p, err)
			}
		}
	}
	for _, a := range want.Addresses {
		p := netip.MustParsePrefix(a)
		if err := n.address(syscall.RTM_NEWADDR, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE, link.Index, p); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	for _, g := range []string{want.Gateway4, want.Gateway6} {
		if g == "" {
			continue
		}
		if err := n.defaultRoute(link.Index, netip.MustParseAddr(g)); err != nil {
			return fmt.Errorf("route over %s: %w", g, err)
		}
	}
	for _, r := range want.Routes {
		to, gateway, source := netip.MustParsePrefix(r.To), netip.MustParseAddr(want.Gateway4), netip.MustParseAddr(r.Source)
		if err := n.routeFrom(link.Index, to, gateway, source); err != nil {
			return fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	return nil
}

// findLink finds the interface with mac. After a restore the only one of the
// guest still has its parent's MAC.
func findLink(mac net.HardwareAddr, only bool) (*net.Interface, error) {
	ethernet, err := ethernetCards()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range ethernet {
		if l.HardwareAddr.String() == mac.String() {
			return &l, nil
		}
		names = append(names, l.Name+" "+l.HardwareAddr.String())
	}
	if only && len(ethernet) == 1 {
		return &ethernet[0], nil
	}
	sort.Strings(names)
	return nil, fmt.Errorf("no interface has this MAC (there are: %s)", strings.Join(names, ", "))
}

// ethernetCards lists the VM's own cards: no loopback, no bridges and the like that the guest made.
func ethernetCards() ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []net.Interface
	for _, l := range all {
		if l.Flags&net.FlagLoopback != 0 || len(l.HardwareAddr) != 6 {
			continue
		}
		// Who has no /sys has made none.
		_, device := os.Stat("/sys/class/net/" + l.Name + "/device")
		if _, sysfs := os.Stat("/sys/class/net"); device == nil || sysfs != nil {
			out = append(out, l)
		}
	}
	return out, nil
}
