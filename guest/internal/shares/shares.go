// Package shares mounts directories and single files of the host in the guest. Each is a FUSE file system
// whose requests go, as they are, to a file server on the host (package sharewire); the
// relay carries them and knows nothing of what they say. Only changes on the host that
// watchers are to see are its own doing (raise.go).
//
// The relay is a process beside the agent. A Go program that starts another one stands
// still until the kernel has read that one's file; lies the file on a share, whoever is to
// bring it must not be the one that waits.
package shares

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
	"vmsan/guest/internal/wire"
)

const (
	// connectWait is how long the host's file server may take to come.
	connectWait = 30 * time.Second
	// answerWait is how long it may then take with what mounting asks of it.
	answerWait = 30 * time.Second
)

// Share is one directory or file, as PUT /v1/config names it.
type Share struct {
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly"`
	// File: what is shared is a file, and the mount's root is no directory.
	File bool `json:"file"`
	// UID and GID are whom it belongs to where the host cannot tell owners apart.
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// manager keeps the shares mounted, whichever file server is there.
type manager struct {
	// mu is held while shares are being mounted, which waits for the host.
	mu   sync.Mutex
	want []Share
	// session is the host's; nil: there is none.
	session *session
	came    chan struct{}
	// set is what is mounted; changed with mu held.
	set atomic.Pointer[mounted]
	// answerWait bounds what configure's mounting waits for.
	answerWait time.Duration
}

func newManager() *manager { return &manager{came: make(chan struct{}, 1), answerWait: answerWait} }

// mounted is all shares, mounted for one session of the host's, or for one after the other that knows of
// the same nodes.
type mounted struct {
	link   *link
	mounts []*mount
	// begins: more are to come, and whoever mounts them waits for the host.
	begins bool
}

// abort fails what is under way and all that comes; the mounts stay until they are ended.
func (s *mounted) abort() {
	for _, one := range s.mounts {
		one.abort()
	}
}

// Check tells what is wrong with a list.
func Check(list []Share) error {
	for _, s := range list {
		if !strings.HasPrefix(s.Target, "/") || strings.ContainsRune(s.Target, 0) || len(s.Target) > 4095 {
			return wire.Errorf(wire.CodeRequest, "The share's place %.128q is no absolute path.", s.Target)
		}
	}
	if len(list) > 255 {
		return wire.Errorf(wire.CodeRequest, "%d shares are more than 255.", len(list))
	}
	return nil
}

// configure mounts shares, once the host's file server is there. If that one goes away
// meanwhile, another one will come.
func (m *manager) configure(list []Share) error {
	var failed error
	deadline := time.After(connectWait)
	for {
		m.mu.Lock()
		if s := m.session; s != nil {
			failed = m.mountAll(list, m.answerWait)
			if failed == nil {
				m.want = list
			}
			if failed == nil || !s.dead.Load() {
				m.mu.Unlock()
				return failed
			}
			m.session = nil
		}
		m.mu.Unlock()
		select {
		case <-m.came:
		case <-deadline:
			return wire.Errorf(wire.CodeConfig, "The host's file server has not come within %v.", connectWait).Because(failed)
		}
	}
}

// session is a connection of the host's file server: it takes what comes, by the goroutine that reads.
type session struct {
	manager *manager
	conn    *sharewire.Conn
	parser  sharewire.Parser
	dead    atomic.Bool
}

// open begins a session. What it is to be is said by its first frame.
func (m *manager) open(c net.Conn) channel.Taker {
	return &session{manager: m, conn: sharewire.NewConn(c)}
}

// Take implements channel.Taker.
func (s *session) Take(p []byte) {
	if s.parser.Feed(p, s.frame) != nil {
		_ = s.conn.Close() // whoever sends that has lost the place
	}
}

// frame takes one frame; it must not wait.
func (s *session) frame(f sharewire.Frame) {
	if f.Kind == sharewire.Begin && len(f.Payload) >= 8 {
		number := binary.LittleEndian.Uint64(f.Payload)
		go s.manager.begin(s, number)
		return
	}
	set := s.manager.set.Load()
	if set == nil || !set.link.is(s.conn) {
		return // of a mount that is gone
	}
	if f.Kind == sharewire.Hold {
		set.link.answered(f.Payload)
		return
	}
	if int(f.Share) >= len(set.mounts) {
		return
	}
	to := set.mounts[f.Share]
	switch f.Kind {
	case sharewire.Message:
		to.toHost.reply(f.Payload)
		set.link.replied()
		return
	case sharewire.DirAttributes:
		to.toHost.ahead.put(f.Payload)
		return
	case sharewire.Notify:
		if node, ok := fuse.Forgets(f.Payload); ok {
			to.toHost.ahead.drop(node)
		}
	}
	f.Payload = bytes.Clone(f.Payload)
	to.later(f)
}

// Lost implements channel.Taker: the session's end is the file server's.
func (s *session) Lost() {
	s.dead.Store(true)
	go s.manager.lost(s)
}

// begin takes a new session. What the old one served is over, unless the host has kept what it
// knew and the mounts have been held since.
func (m *manager) begin(s *session, number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.dead.Load() {
		return
	}
	conn := s.conn
	m.session = s
	set := m.set.Load()
	goesOn := set != nil && set.link.heldAs(number)
	if number != 0 && conn.Write(0, sharewire.Begin, []byte{boolByte(goesOn)}) != nil {
		return
	}
	if goesOn {
		for _, one := range set.mounts {
			if one.hello(conn) != nil {
				return
			}
		}
		set.link.goOnWith(conn)
		return
	}
	m.unmountAll(0)
	if m.want != nil {
		if err := m.mountAll(m.want, 0); err != nil {
			fmt.Fprintf(os.Stderr, "vmsan-agent: warning: shared directories: %v\n", err)
		}
	}
	select {
	case m.came <- struct{}{}:
	default:
	}
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// lost ends what a session served; what is held waits for another one.
func (m *manager) lost(s *session) {
	if set := m.set.Load(); set != nil && set.begins && set.link.is(s.conn) {
		// Whoever mounts holds the lock and waits for answers that do not come any more.
		set.abort()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == s {
		m.session = nil
	}
	set := m.set.Load()
	if set != nil && set.link.is(s.conn) && !set.link.leave(s.conn) {
		m.unmountAll(0)
	}
}

// mountAll mounts a list on the session that there is. What that waits for ends with the
// session, and after limit if that is not 0. The lock is held.
func (m *manager) mountAll(list []Share, limit time.Duration) error {
	conn := m.session.conn
	var late atomic.Bool
	if limit > 0 {
		defer time.AfterFunc(limit, func() {
			late.Store(true)
			if set := m.set.Load(); set != nil && set.begins {
				set.abort()
			}
		}).Stop()
	}
	set := &mounted{link: newLink(conn)}
	for i, s := range list {
		one, err := newMount(byte(i), s, set.link)
		if err == nil {
			// Replies must reach it while it is being mounted.
			set = &mounted{link: set.link, mounts: append(slices.Clone(set.mounts), one), begins: true}
			m.set.Store(set)
			err = one.attach(conn)
		}
		if err == nil && late.Load() {
			err = syscall.ETIMEDOUT
		}
		if err != nil {
			m.unmountAll(0)
			if late.Load() {
				return wire.Errorf(wire.CodeConfig, "The host's file server has not answered within %v; the shared directory %.256q waits for it.",
					limit, s.Target).Because(err)
			}
			return wire.AsInfo(err, wire.CodeConfig, fmt.Sprintf("The shared directory %.256q could not be mounted.", s.Target))
		}
	}
	m.set.Store(&mounted{link: set.link, mounts: set.mounts})
	return nil
}

// hold has nothing under way until goOn; the host keeps what it knows.
func (m *manager) hold(limit time.Duration) error {
	set := m.set.Load()
	if set == nil {
		return nil
	}
	err := set.link.hold(limit)
	if err != nil {
		set.link.goOn()
	}
	return err
}

// move notes that the VM's memory has been in a file since hold.
func (m *manager) move() {
	if set := m.set.Load(); set != nil {
		set.link.move()
	}
}

// goOn ends hold.
func (m *manager) goOn() {
	if set := m.set.Load(); set != nil {
		set.link.goOn()
	}
}

// close unmounts everything; what is not written yet has wait to get to the host.
func (m *manager) close(wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want = nil
	m.unmountAll(wait)
}

// unmountAll ends all mounts, the last first. The lock is held.
func (m *manager) unmountAll(wait time.Duration) {
	if wait > 0 {
		m.flush(wait)
	}
	set := m.set.Swap(nil)
	if set == nil {
		return
	}
	set.link.end()
	for i := len(set.mounts) - 1; i >= 0; i-- {
		set.mounts[i].end()
	}
}

// flush has what is only in the guest's memory written, as far as it goes in that time.
func (m *manager) flush(wait time.Duration) {
	set := m.set.Load()
	if set == nil {
		return
	}
	flushed := make(chan struct{})
	go func() {
		for _, one := range set.mounts {
			_, _, _ = syscall.Syscall(sysSyncfs, uintptr(one.root), 0, 0) // nobody is left to be told
		}
		close(flushed)
	}()
	select {
	case <-flushed:
	case <-time.After(wait):
	}
}
