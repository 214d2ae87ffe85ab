package fileserver

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vmsan/guest/internal/fuse"
)

const (
	// hostReserve is what guests leave of the host's file system to others, in bytes; of a small one a tenth.
	hostReserve = 512 << 20
	// objectBytes is the size of a file system for each object in it, as ext4 has it: so many names does a volume hold.
	objectBytes = 16 << 10
	// objectCost is what an object is taken to need besides its content.
	objectCost = 4096
	// maxUnasked bounds by how much files may grow that seem to be written over.
	maxUnasked = 1 << 20
	// maxDepth of directories that are looked into.
	maxDepth = 4096
	// Looks take at most one part in so many of the time.
	lookPause = 5
	// How long a place that is full is taken to be so at least.
	fullFor = time.Second
)

// What may be taken between two looks: a quarter of what is free, within these.
const (
	minBytes, maxBytes     = 16 << 20, 256 << 20
	minObjects, maxObjects = 1024, 16 << 10
)

// room bounds what a guest may have the host's file system hold: the volume's limit, and the host's reserve. Several
// file servers write to one volume, and host's kernels have quotas seldom: so what is there is looked at, and a part of what is
// free may be taken until the next look. What is given back counts from then on.
type room struct {
	// top is the volume's directory, -1 without a limit.
	top   int
	limit int64

	// freed: the guest has given back something since the last look.
	freed atomic.Bool
	// unasked is how much files have grown that were to be written over; beyond maxUnasked they are not believed to be.
	unasked atomic.Int64

	mu sync.Mutex
	// What may be taken until the next look, and what was granted by the last one.
	bytes, objects               int64
	grantedBytes, grantedObjects int64
	// What the last look has found.
	used, usedObjects, free, freeObjects int64
	looked                               time.Time
	took                                 time.Duration
}

// holds opens what a volume's limit is counted in.
func (o *Options) holds() (int, error) {
	if o.Limit <= 0 {
		return -1, nil
	}
	return openSource(o.Source, false)
}

// take takes room for what is about to be made.
func (s *Share) take(bytes, objects int64) error {
	r := &s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes > r.bytes || objects > r.objects {
		if err := s.look(bytes, objects); err != nil {
			return err
		}
		if bytes > max(r.bytes, r.free) || objects > r.objects {
			return syscall.ENOSPC
		}
	}
	r.bytes -= bytes
	r.objects -= objects
	return nil
}

// look counts what there is, unless it was found full just now. The lock is held.
func (s *Share) look(bytes, objects int64) error {
	r := &s.room
	since := time.Since(r.looked)
	freed := r.freed.Swap(false)
	takenBytes, takenObjects := r.taken()
	full := bytes > r.free-takenBytes || objects > r.freeObjects-takenObjects
	if !r.looked.IsZero() && full && !freed && since < max(fullFor, lookPause*r.took) {
		return syscall.ENOSPC
	}
	if pause := (lookPause-1)*r.took - since; pause > 0 {
		time.Sleep(pause)
	}
	begun := time.Now()
	n, err := s.nodes.get(fuse.RootID)
	if err != nil {
		return err
	}
	defer s.nodes.put(n)
	root, release, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer release()
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(root, &fs); err != nil {
		return err
	}
	r.free, r.freeObjects = hostFree(&fs)
	if r.limit > 0 {
		c := count{}
		c.directory(r.top, 0)
		c.removed(s.nodes)
		if c.partial {
			// What cannot be looked into is not given back.
			c.bytes = max(c.bytes, r.used+takenBytes)
			c.objects = max(c.objects, r.usedObjects+takenObjects)
		}
		r.used, r.usedObjects = c.bytes, c.objects
		r.free = max(0, min(r.free, r.limit-c.bytes))
		r.freeObjects = max(0, min(r.freeObjects, r.limit/objectBytes-c.objects))
	}
	r.bytes = min(r.free, min(maxBytes, max(minBytes, r.free/4)))
	r.objects = min(r.freeObjects, min(maxObjects, max(minObjects, r.freeObjects/4)))
	r.grantedBytes, r.grantedObjects = r.bytes, r.objects
	r.looked = time.Now()
	r.took = r.looked.Sub(begun)
	return nil
}

// taken since the last look.
func (r *room) taken() (bytes, objects int64) {
	return r.grantedBytes - r.bytes, r.grantedObjects - r.objects
}

// hostFree is what guests may take of the host's file system.
func hostFree(fs *syscall.Statfs_t) (bytes, objects int64) {
	const boundless = 1 << 50
	bytes, objects = boundless, boundless
	// Of some nothing is known, or there is no such limit.
	if fs.Blocks > 0 {
		total := int64(fs.Blocks) * fs.Frsize
		bytes = max(0, int64(fs.Bavail)*fs.Frsize-min(hostReserve, total/10))
	}
	if fs.Files > 0 && fs.Ffree <= fs.Files {
		objects = max(0, int64(fs.Ffree)-int64(fs.Files/100))
	}
	return bytes, objects
}

// growing does something that may make a file larger on the disk by need bytes; what it has not needed is given back.
func (s *Share) growing(fd int, need int64, do func() error) error {
	if err := s.take(need, 0); err != nil {
		return err
	}
	before := blocksOf(fd)
	err := do()
	grown := max(0, blocksOf(fd)-before) * 512
	if need == 0 {
		s.room.unasked.Add(grown)
	}
	s.room.mu.Lock()
	s.room.bytes += need - grown
	s.room.mu.Unlock()
	return err
}

// needFor is the room that writing there may take: none where the file's blocks are all there.
func (s *Share) needFor(h *handle, offset, size int64) int64 {
	var st syscall.Stat_t
	if h.flags&syscall.O_APPEND == 0 && s.room.unasked.Load() < maxUnasked && syscall.Fstat(h.fd, &st) == nil &&
		offset+size <= st.Size && st.Blocks*512 >= st.Size {
		return 0
	}
	return size
}

func blocksOf(fd int) int64 {
	var st syscall.Stat_t
	_ = syscall.Fstat(fd, &st) // never fails for a descriptor that is open
	return st.Blocks
}

// count is what a tree takes up on the disk.
type count struct {
	bytes, objects int64
	// partial: something could not be looked into.
	partial bool
}

func (c *count) add(st *syscall.Stat_t) {
	// A file with several names is counted by each for its part.
	c.bytes += st.Blocks * 512 / max(1, int64(st.Nlink))
	c.objects++
}

// directory counts what is in one. Guests change it meanwhile: names lead through no link.
func (c *count) directory(at, depth int) {
	fd, err := reopen(at, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC)
	if err != nil || depth > maxDepth {
		closeFd(fd)
		c.partial = c.partial || err != syscall.ENOENT
		return
	}
	dir := os.NewFile(uintptr(fd), "")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		if err != nil || len(names) == 0 {
			return
		}
		for _, name := range names {
			c.name(fd, name, depth)
		}
	}
}

func (c *count) name(dir int, name string, depth int) {
	st, err := statName(dir, name)
	if err != nil {
		c.partial = c.partial || err != syscall.ENOENT
		return
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		c.add(&st)
		return
	}
	c.bytes += st.Blocks * 512
	c.objects++
	sub, err := openName(dir, name, oPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		c.partial = c.partial || err != syscall.ENOENT
		return
	}
	defer closeFd(sub)
	c.directory(sub, depth+1)
}

// removed counts files that have no name any more and that this guest still has.
func (c *count) removed(t *table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		var st syscall.Stat_t
		if n.fd >= 0 && n.kind == syscall.S_IFREG && syscall.Fstat(n.fd, &st) == nil && st.Nlink == 0 {
			c.add(&st)
		}
	}
}

func (s *Share) statfs(n *node, _ *fuse.Request, _ *fuse.Reader, b []byte) ([]byte, error) {
	fd, release, err := s.nodes.descriptor(n)
	if err != nil {
		return b, err
	}
	defer release()
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(fd, &st); err != nil {
		return b, err
	}
	s.bound(&st)
	for _, v := range []uint64{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range []uint32{uint32(st.Bsize), uint32(st.Namelen), uint32(st.Frsize)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, make([]byte, 7*4)...), nil
}

// bound has a guest see its own bounds instead of the host's.
func (s *Share) bound(st *syscall.Statfs_t) {
	bytes, objects := hostFree(st)
	r := &s.room
	if r.limit > 0 {
		r.mu.Lock()
		if r.looked.IsZero() || r.freed.Load() && time.Since(r.looked) > (lookPause-1)*r.took {
			_ = s.look(0, 0) // fails where the host's own figures do
		}
		takenBytes, takenObjects := r.taken()
		bytes = min(bytes, r.free-takenBytes)
		objects = min(objects, r.freeObjects-takenObjects)
		st.Blocks = uint64(r.limit / st.Frsize)
		st.Files = uint64(r.limit / objectBytes)
		r.mu.Unlock()
	}
	st.Bavail = uint64(max(0, bytes) / st.Frsize)
	st.Bfree = st.Bavail
	st.Ffree = uint64(max(0, objects))
}
