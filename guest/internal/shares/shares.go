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
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/sharewire"
	"vmsan/guest/internal/wire"
)

// connectWait is how long the host's file server may take to come.
const connectWait = 30 * time.Second

// readRoom is what the kernel wants to be offered for a request.
const readRoom = sharewire.HeaderLen + sharewire.MaxFrame

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
	mu   sync.Mutex
	want []Share
	conn *sharewire.Conn
	came chan struct{}

	// listMu guards mounts alone: replies must reach them while mu is held for mounting.
	listMu sync.Mutex
	mounts []*mount
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

// configure mounts shares, once the host's file server is there.
func (m *manager) configure(list []Share) error {
	deadline := time.After(connectWait)
	for {
		m.mu.Lock()
		if m.conn != nil {
			defer m.mu.Unlock()
			m.want = list
			return m.mountAll()
		}
		m.mu.Unlock()
		select {
		case <-m.came:
		case <-deadline:
			return wire.Errorf(wire.CodeConfig, "The host's file server has not come within %v.", connectWait)
		}
	}
}

// serve takes a new connection; it does not block. What the old one served is over.
func (m *manager) serve(c net.Conn) {
	conn := sharewire.NewConn(c)
	go func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conn = conn
		m.unmountAll(0)
		go func() {
			_ = m.carry(conn) // its end is the file server's
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.conn == conn {
				m.conn = nil
				m.unmountAll(0)
			}
		}()
		if m.want != nil {
			if err := m.mountAll(); err != nil {
				fmt.Fprintf(os.Stderr, "vmsan-agent: warning: shared directories: %v\n", err)
			}
		}
		select {
		case m.came <- struct{}{}:
		default:
		}
	}()
}

// carry takes frames from the host until the connection ends.
func (m *manager) carry(c *sharewire.Conn) error {
	for {
		f, err := c.Read(func(size int) []byte { return make([]byte, size) })
		if err != nil {
			return err
		}
		m.listMu.Lock()
		var to *mount
		if int(f.Share) < len(m.mounts) {
			to = m.mounts[f.Share]
		}
		m.listMu.Unlock()
		if to == nil || to.conn != c {
			continue // of a mount that is gone
		}
		if f.Kind == sharewire.Message {
			// ENOENT: whoever asked has been interrupted. ENODEV: it is unmounted.
			_, _ = syscall.Write(to.fd, f.Payload)
		} else {
			to.later(f)
		}
	}
}

// mountAll mounts what is wanted on the connection that there is. The lock is held.
func (m *manager) mountAll() error {
	for i, s := range m.want {
		one, err := newMount(byte(i), s, m.conn)
		if err == nil {
			m.listMu.Lock()
			m.mounts = append(m.mounts, one)
			m.listMu.Unlock()
			err = one.attach()
		}
		if err != nil {
			m.unmountAll(0)
			return wire.AsInfo(err, wire.CodeConfig, fmt.Sprintf("The shared directory %.256q could not be mounted.", s.Target))
		}
	}
	return nil
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
	m.listMu.Lock()
	mounts := m.mounts
	m.mounts = nil
	m.listMu.Unlock()
	for i := len(mounts) - 1; i >= 0; i-- {
		mounts[i].end()
	}
}

// flush has what is only in the guest's memory written, as far as it goes in that time.
func (m *manager) flush(wait time.Duration) {
	flushed := make(chan struct{})
	go func() {
		for _, one := range m.mounts {
			_, _, _ = syscall.Syscall(sysSyncfs, uintptr(one.root), 0, 0) // nobody is left to be told
		}
		close(flushed)
	}()
	select {
	case <-flushed:
	case <-time.After(wait):
	}
}

// mount is one mounted share.
type mount struct {
	index byte
	share Share
	conn  *sharewire.Conn
	fd    int // /dev/fuse
	root  int // its root, never read-only
	queue *queue
}

func newMount(index byte, s Share, conn *sharewire.Conn) (*mount, error) {
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, wire.Errorf(wire.CodeConfig, "The guest's kernel offers no FUSE.").Because(err).
			Remedy("Give it its modules: vmsan setup, or kernel add --modules.")
	}
	return &mount{index: index, share: s, conn: conn, fd: fd, root: -1, queue: newQueue()}, nil
}

// attach mounts it. The mount that is seen may be read-only; the agent's own handle of it
// never is, since raising an event needs a call that could write.
func (m *mount) attach() error {
	place, kind, open := netcfg.MakeDirectory, syscall.S_IFDIR, syscall.O_DIRECTORY
	if m.share.File {
		place, kind, open = netcfg.MakeFile, syscall.S_IFREG, 0
	}
	if err := place(m.share.Target); err != nil {
		_ = syscall.Close(m.fd) // never mounted
		return err
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other", m.fd, kind)
	const flags = syscall.MS_NOSUID | syscall.MS_NODEV
	if err := syscall.Mount("vmsan-share", m.share.Target, "fuse", flags, options); err != nil {
		_ = syscall.Close(m.fd) // as above
		return err
	}
	greeted := make(chan struct{})
	go m.work(greeted)
	<-greeted // before the first request
	go m.read()
	var err error
	// Not O_PATH, by which open_by_handle_at(2) takes no mount.
	if m.root, err = syscall.Open(m.share.Target, syscall.O_RDONLY|syscall.O_CLOEXEC|open, 0); err != nil {
		return err
	}
	if !m.share.ReadOnly {
		return nil
	}
	// A second mount of it over the first, and that read-only.
	self := fmt.Sprintf("/proc/self/fd/%d", m.root)
	err = syscall.Mount(self, m.share.Target, "", syscall.MS_BIND, "")
	if err == nil {
		err = syscall.Mount("", m.share.Target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|flags, "")
	}
	return err
}

// end unmounts it, whoever uses it, and fails what is under way.
func (m *mount) end() {
	const how = syscall.MNT_DETACH | syscall.MNT_FORCE
	_ = syscall.Unmount(m.share.Target, how) // it may not have come that far
	if m.share.ReadOnly {
		_ = syscall.Unmount(m.share.Target, how) // the one below; as above
	}
	m.queue.close()
	if m.root >= 0 {
		_ = syscall.Close(m.root) // nothing was written through it
	}
}

// read takes the kernel's requests to the host until the mount is over.
func (m *mount) read() {
	// It waits in the kernel for most of its life.
	runtime.LockOSThread()
	b := make([]byte, readRoom)
	defer func() { _ = syscall.Close(m.fd) }() // the mount is over
	for {
		n, err := syscall.Read(m.fd, b[sharewire.HeaderLen:])
		switch {
		case err == syscall.EINTR, err == syscall.EAGAIN, err == syscall.ENOENT:
			continue // ENOENT: that request was taken back
		case err != nil || n == 0:
			return // ENODEV: unmounted
		}
		if m.conn.WriteRoom(m.index, sharewire.Message, b[:sharewire.HeaderLen+n]) != nil {
			return
		}
	}
}

// later has a notification or an event done by the mount's own thread: either may wait for
// requests that are under way, so that whoever takes their replies must not wait for it.
func (m *mount) later(f sharewire.Frame) { m.queue.put(f) }

// work does what comes, one after the other, on one thread, which the host is told of.
func (m *mount) work(greeted chan<- struct{}) {
	runtime.LockOSThread()
	hello := binary.LittleEndian.AppendUint32(nil, uint32(syscall.Gettid()))
	hello = binary.LittleEndian.AppendUint32(hello, m.share.UID)
	hello = binary.LittleEndian.AppendUint32(hello, m.share.GID)
	err := m.conn.Write(m.index, sharewire.Hello, hello)
	close(greeted)
	if err != nil {
		return
	}
	for {
		f, ok := m.queue.take()
		if !ok {
			return
		}
		switch f.Kind {
		case sharewire.Notify:
			// ENOENT: the kernel does not know what it is to forget.
			_, _ = syscall.Write(m.fd, f.Payload)
		case sharewire.Watchers:
			if m.conn.Write(m.index, sharewire.Watchers, append(f.Payload[:min(8, len(f.Payload))], m.watchers()...)) != nil {
				return
			}
		case sharewire.Raise:
			ev, ok := sharewire.ParseEvent(f.Payload)
			if !ok {
				continue
			}
			// Failing, nobody in the guest knows the directory, and so nobody watches it.
			_ = raise(m.root, &ev)
			if m.conn.Write(m.index, sharewire.Done, f.Payload[:8]) != nil {
				return
			}
		}
	}
}

// queue holds frames for a mount's thread. The host bounds what it sends.
type queue struct {
	mu     sync.Mutex
	cond   sync.Cond
	frames []sharewire.Frame
	over   bool
}

func newQueue() *queue {
	q := &queue{}
	q.cond.L = &q.mu
	return q
}

func (q *queue) put(f sharewire.Frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frames = append(q.frames, f)
	q.cond.Signal()
}

func (q *queue) take() (sharewire.Frame, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.frames) == 0 && !q.over {
		q.cond.Wait()
	}
	if q.over {
		return sharewire.Frame{}, false
	}
	f := q.frames[0]
	q.frames = q.frames[1:]
	return f, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.cond.Broadcast()
}
