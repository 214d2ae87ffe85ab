package shares

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/rawio"
	"vmsan/guest/internal/sharewire"
	"vmsan/guest/internal/wire"
)

// readRoom is what the kernel wants to be offered for a request.
const readRoom = sharewire.HeaderLen + sharewire.MaxFrame

// mount is one mounted share.
type mount struct {
	index byte
	share Share
	link  *link
	fd    int // /dev/fuse, until it is mounted
	// device is the same from then on, for whoever must not use a number that is another's by now.
	device atomic.Pointer[device]
	root   int // its root, never read-only
	// layers counts the mounts at its place, one over the other.
	layers int
	queue  *queue
	toHost *gatherer
	// thread is the one that raises events.
	thread int
}

// device is an open /dev/fuse.
type device struct {
	file *os.File
	raw  syscall.RawConn
}

func newMount(index byte, s Share, l *link) (*mount, error) {
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, wire.Errorf(wire.CodeConfig, "The guest's kernel offers no FUSE.").Because(err).
			Remedy("Give it its modules: vmsan setup, or kernel add --modules.")
	}
	m := &mount{index: index, share: s, link: l, fd: fd, root: -1, queue: newQueue()}
	m.toHost = &gatherer{link: l, share: index, answer: m.answer}
	return m, nil
}

// attach mounts it. The mount that is seen may be read-only; the agent's own handle of it
// never is, since raising an event needs a call that could write.
func (m *mount) attach(conn *sharewire.Conn) error {
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
	m.layers = 1
	// Not before: the poller takes what is not mounted for broken.
	file := os.NewFile(uintptr(m.fd), "fuse")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close() // nobody reads it
		return err
	}
	dev := &device{file, raw}
	m.device.Store(dev)
	ready := make(chan struct{})
	go m.work(ready)
	<-ready
	if err := m.hello(conn); err != nil { // before the first request
		_ = file.Close() // as above
		return err
	}
	go m.read(dev)
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
		m.layers = 2
		err = syscall.Mount("", m.share.Target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|flags, "")
	}
	return err
}

// end unmounts it, whoever uses it, and fails what is under way.
func (m *mount) end() {
	const how = syscall.MNT_DETACH | syscall.MNT_FORCE
	for range m.layers {
		_ = syscall.Unmount(m.share.Target, how) // somebody in the guest may have done so
	}
	m.queue.close()
	if m.root >= 0 {
		_ = syscall.Close(m.root) // nothing was written through it
	}
}

// abort fails what is under way and all that comes: the kernel does so when its device is closed.
func (m *mount) abort() {
	if dev := m.device.Load(); dev != nil {
		_ = dev.file.Close() // or its reader has closed it
	}
}

// answer gives the kernel a reply or a notification.
func (m *mount) answer(b []byte) {
	if dev := m.device.Load(); dev != nil {
		// ENOENT: whoever asked has been interrupted. ENODEV: it is unmounted; or the device is closed.
		_ = dev.raw.Control(func(fd uintptr) { _, _ = rawio.Write(int(fd), b) })
	}
}

// read takes the kernel's requests to the host until the mount is over.
func (m *mount) read(dev *device) {
	b := make([]byte, readRoom)
	defer func() { _ = dev.file.Close() }() // the mount is over, or has been aborted
	for {
		n := 0
		var err error
		// Unmounted: it can be read, and the reading fails.
		waited := dev.raw.Read(func(fd uintptr) bool {
			n, err = rawio.Read(int(fd), b[sharewire.HeaderLen:])
			return err != syscall.EAGAIN
		})
		switch {
		case waited != nil:
			return
		case err == syscall.EINTR, err == syscall.ENOENT:
			continue // ENOENT: that request was taken back
		case err != nil || n == 0:
			return // ENODEV: unmounted
		}
		if !m.toHost.take(b[:sharewire.HeaderLen+n]) {
			return
		}
	}
}

// later has a notification or an event done by the mount's own thread: either may wait for
// requests that are under way, so that whoever takes their replies must not wait for it.
func (m *mount) later(f sharewire.Frame) { m.queue.put(f) }

// hello tells the host by which thread events are raised, and whose the share is.
func (m *mount) hello(conn *sharewire.Conn) error {
	m.toHost.ahead.clear() // another session's
	b := binary.LittleEndian.AppendUint32(nil, uint32(m.thread))
	b = binary.LittleEndian.AppendUint32(b, m.share.UID)
	b = binary.LittleEndian.AppendUint32(b, m.share.GID)
	return conn.Write(m.index, sharewire.Hello, b)
}

// work does what comes, one after the other, on one thread, which the host is told of.
func (m *mount) work(ready chan<- struct{}) {
	runtime.LockOSThread()
	m.thread = syscall.Gettid()
	close(ready)
	for {
		f, ok := m.queue.take()
		if !ok {
			return
		}
		conn := m.link.begin(true)
		if conn == nil {
			return
		}
		m.do(conn, f)
		m.link.done(true)
	}
}

// do carries out one frame.
func (m *mount) do(conn *sharewire.Conn, f sharewire.Frame) {
	// Errors of conn are its end, which its reader sees.
	switch f.Kind {
	case sharewire.Notify:
		// ENOENT: the kernel does not know what it is to forget.
		_, _ = syscall.Write(m.fd, f.Payload)
	case sharewire.Watchers:
		_ = conn.Write(m.index, sharewire.Watchers, append(f.Payload[:min(8, len(f.Payload))], m.watchers()...))
	case sharewire.Raise:
		ev, ok := sharewire.ParseEvent(f.Payload)
		if !ok {
			return
		}
		// Failing, nobody in the guest knows the directory, and so nobody watches it.
		_ = raise(m.root, &ev)
		_ = conn.Write(m.index, sharewire.Done, f.Payload[:8])
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
