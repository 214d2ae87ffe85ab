package shares

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"vmsan/guest/internal/fuse"
)

const (
	// aheadLife is how long attributes wait to be asked for.
	aheadLife = time.Second
	// aheadMax bounds how many do.
	aheadMax = 64
)

// ahead keeps what the host has said of directories before the kernel asks for it. With each name that it
// makes or removes the kernel forgets the directory's attributes, and wants them at the next use of
// any name in there, to see who may do that: one in two or three of all requests.
type ahead struct {
	mu     sync.Mutex
	byNode map[uint64]attributes
}

type attributes struct {
	// body is that of the reply to GETATTR.
	body []byte
	come time.Time
}

// put takes a frame's payload.
func (a *ahead) put(payload []byte) {
	if len(payload) != 8+fuse.AttrOutLen {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byNode == nil || len(a.byNode) >= aheadMax {
		a.byNode = map[uint64]attributes{}
	}
	a.byNode[binary.LittleEndian.Uint64(payload)] = attributes{bytes.Clone(payload[8:]), time.Now()}
}

// drop forgets a node's.
func (a *ahead) drop(node uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byNode, node)
}

// clear forgets all.
func (a *ahead) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.byNode = nil
}

// reply answers a request of the kernel's, if what it asks for is there, and forgets what the request may change.
func (a *ahead) reply(message []byte) []byte {
	switch fuse.OpcodeOf(message) {
	case 0, fuse.OpLookup, fuse.OpForget, fuse.OpBatchForget, fuse.OpRelease, fuse.OpReleasedir:
		return nil
	case fuse.OpRename, fuse.OpRename2, fuse.OpLink:
		a.clear() // two directories
		return nil
	}
	node := fuse.NodeOf(message)
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.byNode[node]
	delete(a.byNode, node)
	if !ok || !fuse.AsksForAttr(message) || time.Since(known.come) > aheadLife {
		return nil
	}
	return fuse.Reply(fuse.UniqueOf(message), known.body)
}
