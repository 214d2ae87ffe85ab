package main

import (
	"encoding/binary"
	"syscall"
)

// Constants of linux/fib_rules.h.
const (
	ruleToTable   = 1
	attrRuleMark  = 10
	attrRuleTable = 15
)

// addMarkRule6 makes IPv6 packets with a mark look up a routing table, in a namespace.
func addMarkRule6(netns string, mark, table uint32) error {
	message := make([]byte, 16+12+8+8)
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], syscall.RTM_NEWRULE)
	binary.NativeEndian.PutUint16(message[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|syscall.NLM_F_CREATE)
	message[16] = syscall.AF_INET6
	message[23] = ruleToTable
	for i, attribute := range []struct {
		kind  uint16
		value uint32
	}{{attrRuleMark, mark}, {attrRuleTable, table}} {
		at := message[28+8*i:]
		binary.NativeEndian.PutUint16(at[0:], 8)
		binary.NativeEndian.PutUint16(at[2:], attribute.kind)
		binary.NativeEndian.PutUint32(at[4:], attribute.value)
	}
	return inNetns(netns, func() error {
		fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		return exchange(fd, message)
	})
}
