package stream

import (
	"sort"
	"sync"
	"time"

	"vmsan/guest/internal/wire"
)

// Limits of a Registry. Tests shorten the times.
type Limits struct {
	// Broken is how long a stream waits for a client whose connection broke.
	Broken time.Duration
	// KeepEnded is how long an ended stream waits for its client.
	KeepEnded time.Duration
	// MaxEnded is how many ended streams are kept at most.
	MaxEnded int
	// MaxRunning is how many streams run at most.
	MaxRunning int
	// Confirm is how long a response stays open for ACK 0 behind EXIT.
	Confirm time.Duration
	// AttachedRing is the default size of an output's ring in bytes.
	AttachedRing int
}

// DefaultLimits are those of the protocol. In a small guest the rings are
// smaller than 4 MiB: full rings of many commands must not fill its memory.
func DefaultLimits(memTotalKib int64) Limits {
	ring := attachedRing
	if memTotalKib > 0 {
		ring = min(ring, max(1<<20, int(memTotalKib<<10/128)))
	}
	return Limits{
		Broken: 60 * time.Second, KeepEnded: 5 * time.Minute, MaxEnded: 256, MaxRunning: 1024,
		Confirm: 2 * time.Second, AttachedRing: ring,
	}
}

// Starter begins the work of a stream's kind.
type Starter func(*Stream) (Job, error)

// Registry holds all streams.
type Registry struct {
	limits  Limits
	kinds   map[string]Starter
	mu      sync.Mutex
	streams map[string]*Stream
	closed  bool
}

// NewRegistry makes an empty one.
func NewRegistry(limits Limits) *Registry {
	return &Registry{limits: limits, kinds: map[string]Starter{}, streams: map[string]*Stream{}}
}

// Handle says how streams of a kind begin. Call it before anything is started.
func (r *Registry) Handle(kind string, start Starter) { r.kinds[kind] = start }

// Get gives a stream or an error that says that there is none.
func (r *Registry) Get(id string) (*Stream, error) {
	r.mu.Lock()
	s := r.streams[id]
	r.mu.Unlock()
	if s == nil {
		return nil, wire.Errorf(wire.CodeStreamNotFound, "There is no stream %.64q.", id).
			Because("it never started, or it has ended and was forgotten").Remedy("List the streams.")
	}
	<-s.ready
	if s.startErr != nil {
		return nil, s.startErr
	}
	return s, nil
}

// Start gives the stream of spec, starting it unless its id exists already.
func (r *Registry) Start(spec *wire.Spec) (s *Stream, created bool, err error) {
	start := r.kinds[spec.Kind]
	if start == nil {
		return nil, false, wire.Errorf(wire.CodeRequest, "There is no stream kind %.64q.", spec.Kind)
	}
	r.mu.Lock()
	if old := r.streams[spec.ID]; old != nil {
		r.mu.Unlock()
		<-old.ready
		return old, false, old.startErr
	}
	if r.closed {
		r.mu.Unlock()
		return nil, false, wire.Errorf(wire.CodeShutdown, "The guest is shutting down.")
	}
	if n := r.running(); n >= r.limits.MaxRunning {
		r.mu.Unlock()
		return nil, false, wire.Errorf(wire.CodeLimit, "%d streams run already, and that is the limit.", n).
			Remedy("Wait for some of them to end.")
	}
	s = newStream(r, spec)
	r.streams[spec.ID] = s
	r.mu.Unlock()

	job, err := start(s)
	if err != nil {
		s.startErr = err
		r.mu.Lock()
		delete(r.streams, spec.ID)
		r.mu.Unlock()
		close(s.ready)
		return nil, false, err
	}
	s.mu.Lock()
	s.job = job
	s.mu.Unlock()
	s.startTimeout()
	close(s.ready)
	return s, true, nil
}

// running counts; the lock is held.
func (r *Registry) running() int {
	n := 0
	for _, s := range r.streams {
		select {
		case <-s.done:
		default:
			n++
		}
	}
	return n
}

// List gives all streams, the oldest first.
func (r *Registry) List() []*Stream {
	r.mu.Lock()
	out := make([]*Stream, 0, len(r.streams))
	for _, s := range r.streams {
		out = append(out, s)
	}
	r.mu.Unlock()
	sort.Slice(out, func(i, j int) bool {
		if !out[i].started.Equal(out[j].started) {
			return out[i].started.Before(out[j].started)
		}
		return out[i].Spec.ID < out[j].Spec.ID
	})
	return out
}

// Len is the number of streams kept.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}

// Has tells whether id is kept.
func (r *Registry) Has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streams[id] != nil
}

// Delete forgets an ended stream.
func (r *Registry) Delete(id string) error {
	s, err := r.Get(id)
	if err != nil {
		return err
	}
	select {
	case <-s.done:
	default:
		return wire.Errorf(wire.CodeStreamRunning, "The stream %s is still running.", id).Remedy("Signal it and wait for its end first.")
	}
	r.forget(s)
	return nil
}

func (r *Registry) forget(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[s.Spec.ID] == s {
		delete(r.streams, s.Spec.ID)
	}
}

// expire forgets ended streams beyond the limits of time and number.
func (r *Registry) expire() {
	now := time.Now()
	var ended []*Stream
	for _, s := range r.List() {
		s.mu.Lock()
		over := s.exit != nil && len(s.clients) == 0
		late := over && !s.detached && now.Sub(s.ended) > r.limits.KeepEnded
		s.mu.Unlock()
		if late {
			r.forget(s)
		} else if over {
			ended = append(ended, s)
		}
	}
	if extra := len(ended) - r.limits.MaxEnded; extra > 0 {
		sort.Slice(ended, func(i, j int) bool { return ended[i].ended.Before(ended[j].ended) })
		for _, s := range ended[:extra] {
			r.forget(s)
		}
	}
}

// Orphan is for a guest that has become another one: no client of the streams
// will ever come. Commands go on as detached ones, which are found and attached
// to like any other; work for a client (archives, connections) is ended.
func (r *Registry) Orphan() {
	for _, s := range r.List() {
		s.orphan()
	}
}

// Expire is called from time to time by the agent.
func (r *Registry) Expire() { r.expire() }

// Close refuses new streams from now on.
func (r *Registry) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}
