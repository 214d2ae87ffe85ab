// Package channel turns a byte stream (virtio-serial port, vsock or unix
// socket) into HTTP/2 connections: it finds RESET (protocol section 2), ends
// the old session, echoes, and hands on a net.Conn for each session.
package channel

import (
	"bytes"
	"sync"
)

// Magic begins a RESET.
const Magic = "VMSAN-CHANNEL-1\n"

// prefaceStart is how an HTTP/2 client begins. A token is pinned only once it
// follows its RESET: a RESET that was cut off by a disconnection, with another
// one behind it, must not pin a token that nobody has.
const prefaceStart = "PRI * HTTP/2.0\r\n\r\nSM"

// Lengths of RESET's parts, in bytes.
const (
	TokenLen = 16
	NonceLen = 16
)

// Token names the VM to its agent; Nonce names a session.
type (
	Token [TokenLen]byte
	Nonce [NonceLen]byte
)

// Pin is the token that the agent answers to, shared by all its streams.
type Pin struct {
	mu    sync.Mutex
	token Token
	set   bool
}

// Get gives the token, if one is pinned.
func (p *Pin) Get() (Token, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.token, p.set
}

// Set pins t; it counts from the next RESET on.
func (p *Pin) Set(t Token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token, p.set = t, true
}

// first pins t if nothing is pinned yet and tells whether t is the pinned one.
func (p *Pin) first(t Token) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.set {
		p.token, p.set = t, true
	}
	return p.token == t
}

// Sink takes what a Scanner finds, in order.
type Sink interface {
	// Data gives bytes of the open session; they are only valid during the call.
	Data(p []byte)
	// Kill ends the session: a token has come.
	Kill()
	// Open begins a session.
	Open(t Token, n Nonce)
}

// Scanner finds RESET in a byte stream. Bytes of a session are handed on at
// once; for matching across reads it keeps a copy of the last 15.
type Scanner struct {
	pin  *Pin
	sink Sink
	// tail holds the last bytes seen, at most 15.
	tail []byte
	// head collects what follows magic (token and nonce: 32 bytes) or a pinned
	// token (nonce: 16 bytes) while collecting.
	head       []byte
	collecting int
	open       bool
	// candidate is the token of a session that is to pin it; preface is how much
	// of HTTP/2's preface has come, -1 when something else has.
	candidate *Token
	preface   int
}

// NewScanner makes a Scanner that reports to sink.
func NewScanner(pin *Pin, sink Sink) *Scanner {
	return &Scanner{pin: pin, sink: sink, tail: make([]byte, 0, 2*TokenLen), head: make([]byte, 0, TokenLen+NonceLen)}
}

// Feed takes the next bytes of the stream.
func (s *Scanner) Feed(p []byte) {
	for len(p) > 0 {
		token, pinned := s.pin.Get()
		pattern := token[:]
		after := NonceLen
		if !pinned {
			pattern, after = []byte(Magic), TokenLen+NonceLen
		}
		limit := len(p)
		if s.collecting > 0 {
			// No further than to the RESET's end: behind it other rules hold.
			limit = s.collecting - len(s.head)
		} else if s.open && s.candidate != nil && s.preface >= 0 {
			limit = len(prefaceStart) - s.preface // likewise
		}
		p = s.step(p, limit, pattern, after)
	}
}

// step handles up to limit bytes of p, or those up to the first match of
// pattern that ends among them, and gives the rest.
func (s *Scanner) step(p []byte, limit int, pattern []byte, after int) []byte {
	part := p[:min(limit, len(p))]
	end := s.match(part, pattern)
	if end < 0 {
		s.remember(part)
		s.handle(part)
		return p[len(part):]
	}
	// The pattern's last byte is not handled: it could complete a RESET of
	// which it is no part, and nobody wants it since the session ends here.
	s.handle(part[:end-1])
	s.tail = s.tail[:0]
	if s.open {
		s.open = false
		s.sink.Kill()
	}
	s.head, s.collecting = s.head[:0], after
	return p[end:]
}

// match gives the position in p behind the first occurrence of pattern that ends in p, or -1.
func (s *Scanner) match(p, pattern []byte) int {
	n := len(s.tail)
	if n > 0 {
		joint := append(s.tail, p[:min(len(p), len(pattern)-1)]...)
		if i := bytes.Index(joint, pattern); i >= 0 && i+len(pattern) > n {
			return i + len(pattern) - n
		}
	}
	if i := bytes.Index(p, pattern); i >= 0 {
		return i + len(pattern)
	}
	return -1
}

// remember keeps the last 15 bytes.
func (s *Scanner) remember(p []byte) {
	const keep = TokenLen - 1
	if len(p) >= keep {
		s.tail = append(s.tail[:0], p[len(p)-keep:]...)
		return
	}
	if drop := len(s.tail) + len(p) - keep; drop > 0 {
		s.tail = s.tail[:copy(s.tail, s.tail[drop:])]
	}
	s.tail = append(s.tail, p...)
}

// handle gives bytes to whatever wants them: the RESET being collected, then the session.
func (s *Scanner) handle(p []byte) {
	if s.collecting > 0 {
		n := min(len(p), s.collecting-len(s.head))
		s.head = append(s.head, p[:n]...)
		p = p[n:]
		if len(s.head) == s.collecting {
			s.complete()
		}
	}
	if s.open && len(p) > 0 {
		s.sink.Data(p)
		s.confirm(p)
	}
}

// confirm pins the session's token when the session proves to be one.
func (s *Scanner) confirm(p []byte) {
	if s.candidate == nil || s.preface < 0 {
		return
	}
	n := min(len(p), len(prefaceStart)-s.preface)
	if string(p[:n]) != prefaceStart[s.preface:s.preface+n] {
		s.preface = -1
		return
	}
	if s.preface += n; s.preface < len(prefaceStart) {
		return
	}
	pinned := s.pin.first(*s.candidate)
	s.candidate = nil
	if !pinned {
		// Another stream has pinned another token meanwhile.
		s.open = false
		s.sink.Kill()
	}
}

// complete ends the collection of a RESET and opens its session.
func (s *Scanner) complete() {
	var nonce Nonce
	var token Token
	copy(nonce[:], s.head[len(s.head)-NonceLen:])
	s.candidate, s.preface = nil, 0
	if s.collecting == NonceLen {
		token, _ = s.pin.Get()
		s.tail = s.tail[:0]
	} else {
		copy(token[:], s.head)
		s.candidate = &token
	}
	s.collecting = 0
	s.head = s.head[:0]
	s.open = true
	s.sink.Open(token, nonce)
}
