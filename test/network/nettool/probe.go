package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// probe is one attempt.
type probe struct {
	ID   int    `json:"id"`
	Kind string `json:"kind"`
	// Addr is host:port, or a host for icmp.
	Addr string `json:"addr"`
	// Send is what to say after connecting.
	Send string `json:"send"`
	// Name and Type are a DNS question, or Name a TLS server name.
	Name string `json:"name"`
	Type uint16 `json:"type"`
	// Ech offers an encrypted ClientHello with this inner name.
	Ech string `json:"ech"`
	// Frame is a whole Ethernet frame in hexadecimal, and Dev where to send it.
	Frame string `json:"frame"`
	Dev   string `json:"dev"`
	// Split sends in two pieces, the second after a pause.
	Split int `json:"split"`
	// Hold sends that many bytes at first and the rest after PauseMs.
	Hold    int `json:"hold"`
	PauseMs int `json:"pauseMs"`
	// Bytes to send or receive in bulk.
	Bytes int64 `json:"bytes"`
	// Source binds to a local address.
	Source    string `json:"source"`
	TimeoutMs int    `json:"timeoutMs"`
}

func (p probe) timeout() time.Duration {
	if p.TimeoutMs > 0 {
		return time.Duration(p.TimeoutMs) * time.Millisecond
	}
	return 1500 * time.Millisecond
}

// run gives "open …" with what came back, or "closed: why".
func (p probe) run() string {
	text, err := p.try()
	if err != nil {
		return "closed: " + reason(err)
	}
	return "open " + text
}

// reason is a short name of an error.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "i/o timeout") {
		return "timeout"
	}
	return err.Error()
}

func (p probe) try() (string, error) {
	switch p.Kind {
	case "tcp":
		return p.tcp()
	case "udp":
		return p.udp()
	case "dns", "dnstcp":
		return p.dns()
	case "tls":
		return p.tls()
	case "upload", "download":
		return p.bulk()
	case "icmp":
		return p.icmp()
	case "frame":
		return p.frame()
	}
	return "", fmt.Errorf("no probe kind %q", p.Kind)
}

// converse says p.Send and reads what comes back until silence.
func (p probe) converse(conn net.Conn) (string, error) {
	conn.SetDeadline(time.Now().Add(p.timeout()))
	pieces, pause := []string{p.Send}, time.Duration(p.PauseMs)*time.Millisecond
	cut := p.Hold
	if cut == 0 {
		cut, pause = p.Split, 60*time.Millisecond
	}
	if cut > 0 && cut < len(p.Send) {
		pieces = []string{p.Send[:cut], p.Send[cut:]}
	}
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(pause)
		}
		if _, err := conn.Write([]byte(piece)); err != nil {
			return "", err
		}
	}
	var all []byte
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		all = append(all, buffer[:n]...)
		if n > 0 {
			// What belongs together comes together; wait only for a straggler.
			conn.SetDeadline(time.Now().Add(150 * time.Millisecond))
		}
		if err != nil {
			if len(all) > 0 {
				return string(all), nil
			}
			return "", err
		}
	}
}

func (p probe) tcp() (string, error) {
	dialer := net.Dialer{Timeout: p.timeout()}
	if p.Source != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.Source)}
	}
	conn, err := dialer.Dial("tcp", p.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return p.converse(conn)
}

func (p probe) udp() (string, error) {
	dialer := net.Dialer{Timeout: p.timeout()}
	if p.Source != "" {
		dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(p.Source)}
	}
	conn, err := dialer.Dial("udp", p.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(p.timeout()))
	if _, err := conn.Write([]byte(p.Send)); err != nil {
		return "", err
	}
	buffer := make([]byte, 65536)
	n, err := conn.Read(buffer)
	if err != nil {
		return "", err
	}
	return string(buffer[:min(n, 200)]), nil
}

// question is a DNS query for p.Name and p.Type.
func (p probe) question() []byte {
	query := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(strings.TrimSuffix(p.Name, "."), ".") {
		query = append(query, byte(len(label)))
		query = append(query, label...)
	}
	query = append(query, 0)
	query = binary.BigEndian.AppendUint16(query, p.Type)
	return append(query, 0, 1)
}

func (p probe) dns() (string, error) {
	network := "udp"
	if p.Kind == "dnstcp" {
		network = "tcp"
	}
	conn, err := net.DialTimeout(network, p.Addr, p.timeout())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(p.timeout()))
	query := p.question()
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := conn.Write(query); err != nil {
		return "", err
	}
	buffer := make([]byte, 65536)
	n, err := conn.Read(buffer)
	if err != nil {
		return "", err
	}
	answer := buffer[:n]
	if network == "tcp" {
		if n < 2 {
			return "", io.ErrUnexpectedEOF
		}
		answer = buffer[2:n]
	}
	return readAnswer(answer)
}

// readAnswer gives "rcode=N addresses…", or an error for a reply without addresses.
func readAnswer(message []byte) (string, error) {
	if len(message) < 12 {
		return "", fmt.Errorf("odd reply %q", message)
	}
	code := int(message[3] & 15)
	at := 12
	skipName := func() {
		for at < len(message) {
			length := int(message[at])
			if length >= 0xc0 {
				at += 2
				return
			}
			at += 1 + length
			if length == 0 {
				return
			}
		}
	}
	for range binary.BigEndian.Uint16(message[4:]) {
		skipName()
		at += 4
	}
	var found []string
	for range binary.BigEndian.Uint16(message[6:]) {
		skipName()
		if at+10 > len(message) {
			break
		}
		kind := binary.BigEndian.Uint16(message[at:])
		length := int(binary.BigEndian.Uint16(message[at+8:]))
		at += 10
		if at+length > len(message) {
			break
		}
		switch kind {
		case 1, 28:
			found = append(found, net.IP(message[at:at+length]).String())
		case 12, 16, 65:
			found = append(found, fmt.Sprintf("%q", message[at:at+length]))
		}
		at += length
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no records, rcode=%d", code)
	}
	return fmt.Sprintf("rcode=%d %s", code, strings.Join(found, " ")), nil
}

// echList is an ECHConfigList with a fresh key (draft-ietf-tls-esni, version 0xfe0d).
func echList(publicName string) []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	fail(err)
	body := []byte{7, 0, 0x20}
	public := key.PublicKey().Bytes()
	body = binary.BigEndian.AppendUint16(body, uint16(len(public)))
	body = append(body, public...)
	body = append(body, 0, 4, 0, 1, 0, 1, 32, byte(len(publicName)))
	body = append(body, publicName...)
	body = append(body, 0, 0)
	config := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(body)))
	config = append(config, body...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}

func (p probe) tls() (string, error) {
	raw, err := net.DialTimeout("tcp", p.Addr, p.timeout())
	if err != nil {
		return "", err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(p.timeout()))
	config := &tls.Config{ServerName: p.Name, InsecureSkipVerify: true}
	if p.Name == "" {
		config.ServerName = ""
	}
	if p.Ech != "" {
		config.EncryptedClientHelloConfigList = echList(p.Name)
		config.ServerName = p.Ech
		config.MinVersion = tls.VersionTLS13
		config.EncryptedClientHelloRejectionVerify = func(tls.ConnectionState) error { return nil }
	}
	conn := tls.Client(&fragmenting{raw, p.Split}, config)
	if err := conn.Handshake(); err != nil {
		var rejected *tls.ECHRejectionError
		if errors.As(err, &rejected) {
			return "server reached", nil
		}
		return "", err
	}
	return p.converse(conn)
}

// fragmenting sends its first write in two pieces.
type fragmenting struct {
	net.Conn
	split int
}

func (f *fragmenting) Write(data []byte) (int, error) {
	if f.split > 0 && f.split < len(data) {
		if _, err := f.Conn.Write(data[:f.split]); err != nil {
			return 0, err
		}
		time.Sleep(60 * time.Millisecond)
		split := f.split
		f.split = 0
		n, err := f.Conn.Write(data[split:])
		return split + n, err
	}
	return f.Conn.Write(data)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(data[i])<<8 | uint32(data[i+1])
	}
	if len(data)%2 == 1 {
		sum += uint32(data[len(data)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func (p probe) icmp() (string, error) {
	network, request, answer := "ip4:icmp", byte(8), byte(0)
	if strings.Contains(p.Addr, ":") {
		network, request, answer = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := net.Dial(network, p.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(p.timeout()))
	message := []byte{request, 0, 0, 0, byte(p.ID >> 8), byte(p.ID), 0, 1, 'v', 'm'}
	if network == "ip4:icmp" {
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	if _, err := conn.Write(message); err != nil {
		return "", err
	}
	buffer := make([]byte, 1500)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return "", err
		}
		if network == "ip4:icmp" && n >= 20 {
			// Raw IPv4 sockets deliver the IP header too.
			n = copy(buffer, buffer[int(buffer[0]&15)*4:n])
		}
		if n >= 8 && buffer[0] == answer && buffer[4] == byte(p.ID>>8) && buffer[5] == byte(p.ID) {
			return "pong", nil
		}
	}
}

// frame sends a raw Ethernet frame; whether it got anywhere is for an observer to say.
func (p probe) frame() (string, error) {
	data, err := hex.DecodeString(p.Frame)
	if err != nil {
		return "", err
	}
	dev, err := net.InterfaceByName(p.Dev)
	if err != nil {
		return "", err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	return "sent", syscall.Sendto(fd, data, 0, &syscall.SockaddrLinklayer{Ifindex: dev.Index, Halen: 6})
}

// bulk moves p.Bytes in one direction and gives the rate in Mbit/s.
func (p probe) bulk() (string, error) {
	conn, err := net.DialTimeout("tcp", p.Addr, p.timeout())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	started := time.Now()
	moved := int64(0)
	for moved < p.Bytes {
		var n int
		if p.Kind == "upload" {
			n, err = conn.Write(buffer)
		} else {
			n, err = conn.Read(buffer)
		}
		moved += int64(n)
		if err != nil {
			return "", err
		}
	}
	if p.Kind == "upload" {
		// The other side says when it has read everything.
		conn.(*net.TCPConn).CloseWrite()
		if _, err := conn.Read(buffer); err != nil && err != io.EOF {
			return "", err
		}
	}
	return fmt.Sprintf("rate=%.2f", float64(moved)*8/1e6/time.Since(started).Seconds()), nil
}
