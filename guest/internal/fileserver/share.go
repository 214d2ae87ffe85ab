// Package fileserver serves directories and single files of the host to one VM: the FUSE protocol of the
// guest's kernel comes in over a byte stream (package sharewire), system calls on the
// shared directory go out. A guest is taken to be hostile, its kernel included.
//
// No path of a guest is ever walked. Every request names a node, which stands for an
// object that was found in the shared directory, one name at a time and through no link
// (openat2 with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS), and at most one name in it,
// which holds no slash and is neither "." nor "..". What moves meanwhile is found not to
// be the same object. Devices and sockets are never opened.
package fileserver

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"vmsan/guest/internal/fuse"
	"vmsan/guest/internal/sharewire"
)

// nobody stands for owners that have no counterpart on the other side.
const nobody = 65534

// Options of one share.
type Options struct {
	// Source is the absolute path on the host.
	Source string `json:"source"`
	// File: it is a regular file instead of a directory, and the share's root.
	File bool `json:"file"`
	// Readonly refuses every change.
	Readonly bool `json:"readonly"`
	// Hidden are absolute paths that the guest must not see.
	Hidden []string `json:"hidden"`
	// Volume: several VMs write to it, by a file server each. Owners are theirs, and what one has written
	// the next look of another one finds.
	Volume bool `json:"volume"`
	// Part is a path below Source that is served instead of all of it; no link in it is followed.
	Part string `json:"part"`
	// Limit is what all of Source may take up on the disk, in bytes; 0: what the host has.
	Limit int64 `json:"limit"`
}

// owner is a user of the guest.
type owner struct{ uid, gid uint32 }

// Share serves one directory, or one file.
type Share struct {
	index    byte
	readonly bool
	hidden   map[key]bool
	remote   bool // other machines change it, which inotify does not see
	root     key
	uid, gid uint32 // this process's
	volume   bool
	// squash: this process may give nothing away. Its files belong to the guest's owner, all
	// others to nobody. As root numbers are the same on both sides, but that what belongs to
	// root belongs to the guest's owner: whoever runs vmsan is that one in the guest. Not in a volume.
	squash bool
	owner  atomic.Pointer[owner]

	nodes   *table
	room    room
	graves  graves
	watcher *watcher
	// changing is held for reading by changes of the guest's, until they are noted as such,
	// and for writing by whoever asks whether a change was the guest's.
	changing sync.RWMutex

	handleMu   sync.Mutex
	handles    map[uint64]*handle
	nextHandle uint64

	// resumed: what the guest's kernel knows is from another file server's time.
	resumed bool
	// raiser is the agent's thread whose requests raise events.
	raiser atomic.Uint32
	// raised is the event that is being raised.
	raised atomic.Pointer[raising]
	send   func(kind byte, payload []byte) error
}

// Open begins to serve what a share is of. Errors say what is wrong with it.
func Open(index byte, o Options, send func(kind byte, payload []byte) error) (*Share, error) {
	fd, err := o.open()
	if err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	err = syscall.Fstat(fd, &st)
	if err == nil && o.File && st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		err = syscall.EINVAL // something else has taken the file's place
	}
	if err != nil {
		closeFd(fd)
		return nil, err
	}
	s := &Share{
		index: index, readonly: o.Readonly, hidden: map[key]bool{}, root: keyOf(&st), volume: o.Volume,
		uid: uint32(syscall.Geteuid()), gid: uint32(syscall.Getegid()), squash: syscall.Geteuid() != 0,
		nodes: newTable(fd, &st), handles: map[uint64]*handle{}, nextHandle: 1, send: send,
	}
	s.room.limit = o.Limit
	if s.room.top, err = o.holds(); err != nil {
		closeFd(fd)
		return nil, err
	}
	s.owner.Store(&owner{})
	for _, path := range o.Hidden {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil {
			s.hidden[keyOf(&st)] = true
		}
	}
	var fs syscall.Statfs_t
	s.remote = syscall.Fstatfs(fd, &fs) == nil && remoteTypes[uint32(fs.Type)]
	s.watcher = newWatcher(s)
	if !o.File {
		s.watcher.add(s.nodes.byID[fuse.RootID], fd)
	}
	return s, nil
}

// open opens what is served.
func (o *Options) open() (int, error) {
	if o.Part == "" {
		return openSource(o.Source, o.File)
	}
	at, err := openSource(o.Source, false)
	names := strings.Split(o.Part, "/")
	for i, name := range names {
		if err != nil {
			break
		}
		flags := oPath | syscall.O_DIRECTORY
		if o.File && i == len(names)-1 {
			flags = oPath
		}
		next := -1
		if err = syscall.EINVAL; !badName(name) {
			next, err = openName(at, name, flags, 0)
		}
		closeFd(at)
		at = next
	}
	return at, err
}

// Close ends the share: everything open is closed.
func (s *Share) Close() {
	s.watcher.close()
	s.handleMu.Lock()
	for _, h := range s.handles {
		closeFd(h.fd)
	}
	s.handles = nil
	closeFd(s.room.top)
	s.handleMu.Unlock()
	s.nodes.mu.Lock()
	for _, n := range s.nodes.byID {
		closeFd(n.fd)
	}
	s.nodes.byID = nil
	s.nodes.mu.Unlock()
}

// Types of file systems, as statfs(2) tells them.
var (
	// remoteTypes: NFS, SMB, CIFS, FUSE, 9p, Ceph, AFS.
	remoteTypes = map[uint32]bool{
		0x6969: true, 0xfe534d42: true, 0xff534d42: true, 0x65735546: true, 0x01021997: true, 0x00c36400: true, 0x5346414f: true,
	}
	// kernelTypes hold no files but handles of the host's kernel, which nobody means to
	// share: proc, sysfs, cgroups, debugfs, tracefs, securityfs, configfs, bpf, devpts, efivarfs,
	// binfmt_misc, selinux, pstore, fusectl.
	kernelTypes = map[uint32]bool{
		0x9fa0: true, 0x62656572: true, 0x27e0eb: true, 0x63677270: true, 0x64626720: true, 0x74726163: true,
		0x73636673: true, 0x62656570: true, 0xcafe4a11: true, 0x1cd1: true, 0xde5e81e4: true, 0x42494e4d: true,
		0xf97cff8c: true, 0x6165676c: true, 0x65735543: true,
	}
)

// badName tells whether a name is more than one step down.
func badName(name string) bool {
	return name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsRune(name, '/')
}

// shown tells whether the guest may see an object.
func (s *Share) shown(st *syscall.Stat_t) bool { return !s.hidden[keyOf(st)] }

// inode is the number that the guest sees. Mounts inside the share have numbers of their
// own, which are kept apart.
func (s *Share) inode(k key) uint64 {
	if k.dev == s.root.dev {
		return k.ino
	}
	return k.ino ^ (k.dev*0x9e3779b97f4a7c15)<<20 | 1<<63
}

// shownID is the guest's number for one of the host's: own is this process's, which is the
// guest's owner there.
func (s *Share) shownID(id, own, owner uint32) uint32 {
	switch {
	case id == own:
		return owner
	case s.squash:
		return nobody
	}
	return id
}

// givenID is the host's number, as root, for what a user of the guest makes in a directory that
// belongs to dir. What the guest's owner makes is the directory's owner's, if that is
// root or has the same number.
func givenID(id, dir, owner uint32) uint32 {
	if id != owner || dir == owner {
		return id
	}
	return 0
}

// sameOwners tells whether numbers are the same on both sides, without exception.
func (s *Share) sameOwners() bool { return s.volume && !s.squash }

func (s *Share) attr(st *syscall.Stat_t) fuse.Attr {
	uid, gid := st.Uid, st.Gid
	if !s.sameOwners() {
		own := s.owner.Load()
		uid, gid = s.shownID(uid, s.uid, own.uid), s.shownID(gid, s.gid, own.gid)
	}
	at := func(t syscall.Timespec) fuse.Time { return fuse.Time{Sec: t.Sec, Nsec: uint32(t.Nsec)} }
	return fuse.Attr{
		Ino: s.inode(keyOf(st)), Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Atime: at(st.Atim), Mtime: at(st.Mtim), Ctime: at(st.Ctim),
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: uid, GID: gid, Rdev: uint32(st.Rdev), Blksize: uint32(st.Blksize),
	}
}

// Seconds for which the guest's kernel may believe what it was told: long where a change on
// the host is noticed and said, short elsewhere.
const (
	longValid  = 10
	shortValid = 1
)

// nameValid is for names in a directory.
func (s *Share) nameValid(dir *node) uint64 {
	if dir.watch.Load() > 0 && !s.remote {
		return longValid
	}
	return shortValid
}

// attrValid is for attributes of an object in a directory. Those of a volume's files are asked for each time, before each
// reading too: what another VM has written is not to be missed by one that comes after it.
func (s *Share) attrValid(parent, n *node, st *syscall.Stat_t) uint64 {
	if s.volume && n.kind == syscall.S_IFREG {
		return 0
	}
	if n.kind == syscall.S_IFDIR {
		parent = n // what changes in it changes its times
	} else if st.Nlink > 1 {
		return shortValid // another name of it may be changed by
	}
	if parent == nil {
		return shortValid
	}
	return s.nameValid(parent)
}

// answer carries out a request. The reply's body is appended to b, which holds the room
// for frame and header. quiet: there is no reply.
func (s *Share) answer(r *fuse.Request, b []byte) (reply []byte, err error, quiet bool) {
	in := fuse.NewReader(r.Body)
	switch r.Opcode {
	case fuse.OpForget:
		s.nodes.forget(r.Node, in.U64())
		return nil, nil, true
	case fuse.OpBatchForget:
		count := in.U32()
		in.U32()
		for range min(count, uint32(len(r.Body)/16)) {
			id := in.U64()
			s.nodes.forget(id, in.U64())
		}
		return nil, nil, true
	case fuse.OpInterrupt:
		return nil, nil, true // nothing here waits for long
	case fuse.OpInit:
		reply, err = s.init(in, b)
		return reply, err, false
	case fuse.OpDestroy:
		return b, nil, false
	}
	op, ok := operations[r.Opcode]
	if !ok {
		return b, syscall.ENOSYS, false
	}
	n, err := s.nodes.get(r.Node)
	if err != nil {
		return b, err, false
	}
	defer s.nodes.put(n)
	if reply, err, done := s.answerRaised(n, r, b); done {
		return reply, err, false
	}
	if op.changes && s.readonly {
		return b, syscall.EROFS, false
	}
	if op.changes && s.fromRaiser(r) {
		// Of an event that is over: it is not to happen a second time.
		return b, syscall.ECANCELED, false
	}
	if op.changes {
		s.changing.RLock()
		defer s.changing.RUnlock()
	}
	if op.makes {
		if err := s.take(objectCost, 1); err != nil {
			return b, err, false
		}
	}
	reply, err = op.run(s, n, r, in, b)
	if in.Bad() && err == nil {
		err = syscall.EINVAL
	}
	return reply, err, false
}

// operation is what one opcode does to a node.
type operation struct {
	run func(s *Share, n *node, r *fuse.Request, in *fuse.Reader, b []byte) ([]byte, error)
	// changes: not on a share that is only read.
	changes bool
	// makes: there may be one object more behind it, or one that takes up more.
	makes bool
}

var operations map[uint32]operation

func init() {
	operations = map[uint32]operation{
		fuse.OpLookup:        {run: (*Share).lookup},
		fuse.OpGetattr:       {run: (*Share).getattr},
		fuse.OpSetattr:       {run: (*Share).setattr, changes: true},
		fuse.OpReadlink:      {run: (*Share).readlink},
		fuse.OpSymlink:       {run: (*Share).symlink, changes: true, makes: true},
		fuse.OpMknod:         {run: (*Share).mknod, changes: true, makes: true},
		fuse.OpMkdir:         {run: (*Share).mkdir, changes: true, makes: true},
		fuse.OpUnlink:        {run: (*Share).unlink, changes: true},
		fuse.OpRmdir:         {run: (*Share).rmdir, changes: true},
		fuse.OpRename:        {run: (*Share).rename, changes: true},
		fuse.OpRename2:       {run: (*Share).rename2, changes: true},
		fuse.OpLink:          {run: (*Share).link, changes: true, makes: true},
		fuse.OpOpen:          {run: (*Share).open},
		fuse.OpCreate:        {run: (*Share).create, changes: true, makes: true},
		fuse.OpRead:          {run: (*Share).read},
		fuse.OpWrite:         {run: (*Share).write, changes: true},
		fuse.OpStatfs:        {run: (*Share).statfs},
		fuse.OpRelease:       {run: (*Share).release},
		fuse.OpFsync:         {run: (*Share).fsync},
		fuse.OpSetxattr:      {run: (*Share).setxattr, changes: true, makes: true},
		fuse.OpGetxattr:      {run: (*Share).getxattr},
		fuse.OpListxattr:     {run: (*Share).listxattr},
		fuse.OpRemovexattr:   {run: (*Share).removexattr, changes: true},
		fuse.OpOpendir:       {run: (*Share).opendir},
		fuse.OpReaddir:       {run: (*Share).readdir},
		fuse.OpReaddirplus:   {run: (*Share).readdirplus},
		fuse.OpReleasedir:    {run: (*Share).release},
		fuse.OpFsyncdir:      {run: (*Share).fsync},
		fuse.OpSetlk:         {run: (*Share).setlk},
		fuse.OpSetlkw:        {run: (*Share).setlk},
		fuse.OpFallocate:     {run: (*Share).fallocate, changes: true},
		fuse.OpLseek:         {run: (*Share).lseek},
		fuse.OpCopyFileRange: {run: (*Share).copyRange, changes: true},
	}
}

// init agrees on what both sides can do. Pages are written through: with a write-back cache
// the guest's kernel would own sizes and times of files that the host changes as well. Directories are always listed
// with attributes: left to choose, the kernel asks for them in every other piece of a listing, and name by name for the rest.
// O_TRUNC is a request of its own (but for kernels of VMs that have slept since it was not): within OPEN and CREATE it makes the
// kernel ask for the attributes of each file that is made.
func (s *Share) init(in *fuse.Reader, b []byte) ([]byte, error) {
	major, minor, readahead, offered := in.U32(), in.U32(), in.U32(), in.U32()
	if major != fuse.Major || minor < 31 {
		return b, syscall.EPROTO // kernels before 5.4
	}
	const wanted = fuse.CapAsyncRead | fuse.CapBigWrites | fuse.CapAutoInvalData |
		fuse.CapDoReaddirplus | fuse.CapAsyncDio | fuse.CapParallelDirops |
		fuse.CapMaxPages | fuse.CapCacheSymlinks | fuse.CapHandleKillpriv2
	flags := uint32(wanted)
	if s.volume {
		flags |= fuse.CapFlockLocks
	}
	reply := fuse.InitReply{
		Minor: min(minor, fuse.Minor), MaxReadahead: min(readahead, sharewire.MaxData), Flags: flags & offered,
		MaxWrite: sharewire.MaxData, MaxBackground: 16, MaxPages: sharewire.MaxData / 4096,
	}
	return reply.Append(b), nil
}
