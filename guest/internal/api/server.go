// Package api is the agent's HTTP/2 interface to the host (protocol section 3):
// it checks requests, calls the packages that do the work and shapes replies.
package api

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/kinds"
	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/shares"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// maxBody bounds JSON bodies in bytes.
const maxBody = 1 << 20

// Modes of the agent.
const (
	ModeInit    = "init"
	ModeProcess = "process"
)

// Options of a Server.
type Options struct {
	Build  string
	Mode   string
	BootID string
	Pin    *channel.Pin
	// Config applies PUT /v1/config.
	Config *netcfg.Config
	Host   *kinds.Host
	Limits stream.Limits
	// PowerOff ends the VM or the process after POST /v1/shutdown; streams and
	// processes have been ended by then.
	PowerOff func(reboot bool)
	// OwnInit asks an init that runs beside the agent to shut down; nil if the agent is init itself.
	OwnInit func(reboot bool)
	// FreezeDisk holds the VM's own file system or lets it go; nil if there is none.
	FreezeDisk func(hold bool) error
	// Disk is the root of the VM's own file system; nil if there is none.
	Disk *os.File
	// Shares: directories of the host can be mounted.
	Shares bool
	// Everybody: TERM and KILL go to every process of the guest, else to the agent's descendants.
	Everybody bool
}

// Server answers the host.
type Server struct {
	opts         Options
	started      time.Time
	streams      *stream.Registry
	http         *http.Server
	conns        *channel.Connections
	configured   atomic.Bool
	shuttingDown atomic.Bool
	// relay carries the host's shared directories.
	relay shares.Process
	// lapsing lets go of what is held, unless the host does.
	lapsing atomic.Pointer[time.Timer]
}

// New makes a server.
func New(opts Options) *Server {
	s := &Server{opts: opts, started: time.Now(), streams: stream.NewRegistry(opts.Limits), conns: channel.NewConnections()}
	opts.Host.Register(s.streams)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:   s.routes(),
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          2000,
			MaxReadFrameSize:              256 << 10,
			MaxReceiveBufferPerStream:     4 << 20,
			MaxReceiveBufferPerConnection: 8 << 20,
		},
		// A broken session is an ordinary event; panics of handlers are not.
		ErrorLog: log.New(os.Stderr, "vmsan-agent: ", 0),
	}
	return s
}

// ServeConn serves one session; it does not block.
func (s *Server) ServeConn(c net.Conn) { s.conns.Serve(c) }

// Run serves sessions until Close.
func (s *Server) Run() error {
	stop := make(chan struct{})
	defer close(stop)
	go s.janitor(stop)
	return s.http.Serve(s.conns)
}

// Close ends all sessions.
func (s *Server) Close() error { return errors.Join(s.http.Close(), s.conns.Close()) }

// Streams gives the registry.
func (s *Server) Streams() *stream.Registry { return s.streams }

// janitor forgets ended streams and removes left cgroups.
func (s *Server) janitor(stop <-chan struct{}) {
	t := time.NewTicker(15 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.streams.Expire()
			s.opts.Host.Cgroups.Sweep(s.streams.Has)
		case <-stop:
			return
		}
	}
}

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/hello", s.hello)
	m.HandleFunc("PUT /v1/config", s.config)
	m.HandleFunc("GET /v1/clock", s.clock)
	m.HandleFunc("PUT /v1/seal", s.seal)
	m.HandleFunc("PUT /v1/limits", s.limits)
	m.HandleFunc("POST /v1/freeze", s.freeze)
	m.HandleFunc("POST /v1/thaw", s.thaw)
	m.HandleFunc("POST /v1/grow", s.grow)
	m.HandleFunc("PUT /v1/ssh", s.ssh)
	m.HandleFunc("GET /v1/streams", s.listStreams)
	m.HandleFunc("POST /v1/streams", s.openStream)
	m.HandleFunc("POST /v1/streams/{id}", s.attachStream)
	m.HandleFunc("GET /v1/streams/{id}", s.getStream)
	m.HandleFunc("GET /v1/streams/{id}/wait", s.waitStream)
	m.HandleFunc("POST /v1/streams/{id}/signal", s.signalStream)
	m.HandleFunc("DELETE /v1/streams/{id}", s.deleteStream)
	s.fsRoutes(m)
	m.HandleFunc("GET /v1/stats", s.stats)
	m.HandleFunc("GET /v1/processes", s.processes)
	m.HandleFunc("POST /v1/shutdown", s.shutdown)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, wire.Errorf(wire.CodeRequest, "The agent has no %s %.128s.", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The host has clocks of its own; a date is half of what a small reply's head costs an emulated guest.
		w.Header()["Date"] = nil
		m.ServeHTTP(w, r)
	})
}

// EndUnclaimed powers the VM off if nobody has configured it within limit: the
// host that started it is gone, and perhaps no other one will ever look for it.
func (s *Server) EndUnclaimed(limit time.Duration) {
	time.AfterFunc(limit, func() {
		if !s.configured.Load() {
			s.opts.PowerOff(false)
		}
	})
}

// hello greets and refuses other protocols.
func (s *Server) hello(w http.ResponseWriter, r *http.Request) {
	if v := r.Header.Get("vmsan-protocol"); v != strconv.Itoa(wire.Version) {
		writeError(w, http.StatusUpgradeRequired,
			wire.Errorf(wire.CodeVersion, "The host speaks protocol %.16q (build %.64q), the agent %d (build %q).",
				v, r.Header.Get("vmsan-build"), wire.Version, s.opts.Build).
				Remedy("Stop and start the VM, so that it gets the agent of this vmsan."))
		return
	}
	s.heard()
	var u syscall.Utsname
	// Uname cannot fail with a valid buffer.
	_ = syscall.Uname(&u)
	writeJSON(w, map[string]any{
		"protocol": wire.Version, "build": s.opts.Build, "pid": os.Getpid(), "bootId": s.opts.BootID,
		"kernel": utsString(u.Release[:]), "arch": utsString(u.Machine[:]), "configured": s.configured.Load(),
		"mode": s.opts.Mode, "uptimeMs": time.Since(s.started).Milliseconds(),
	})
}

// config applies what the host says about the VM.
func (s *Server) config(w http.ResponseWriter, r *http.Request) {
	var c struct {
		netcfg.Request
		Shares []shares.Share `json:"shares"`
		// User is whom they belong to.
		User wire.Text `json:"sharesUser"`
	}
	if !readJSON(w, r, &c) {
		return
	}
	s.heard()
	reply := &netcfg.Reply{}
	share := func() error { return s.mountShares(c.Shares, string(c.User), reply) }
	apply := func() error {
		applied, err := s.opts.Config.Apply(&c.Request)
		if err == nil {
			applied.Skipped = append(applied.Skipped, reply.Skipped...)
			reply = applied
		}
		return err
	}
	for _, one := range c.Shares {
		c.Request.Shared = append(c.Request.Shared, one.Target)
	}
	steps := []func() error{func() error { return shares.Check(c.Shares) }, share, apply}
	if within(c.Shares, c.Mounts) {
		steps[1], steps[2] = apply, share
	}
	for _, step := range steps {
		if err := step(); err != nil {
			writeError(w, statusOf(err), err)
			return
		}
	}
	s.configured.Store(c.Rehearsal == nil)
	if c.Restored != "" {
		reply.Warnings = append(reply.Warnings, s.restored(&c.Request)...)
	}
	writeJSON(w, reply)
}

// seal makes the root read-only.
func (s *Server) seal(w http.ResponseWriter, _ *http.Request) {
	if err := s.opts.Config.Seal(); err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// limits sets those of commands to come.
func (s *Server) limits(w http.ResponseWriter, r *http.Request) {
	var c struct {
		Limits []proc.Limit `json:"limits"`
	}
	if !readJSON(w, r, &c) {
		return
	}
	if err := s.opts.Config.SetLimits(c.Limits); err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// within tells whether a shared directory lies in another mount, which then comes first.
// Otherwise it is the other way round: a volume for what is built in a shared tree of sources.
func within(list []shares.Share, mounts []netcfg.Mount) bool {
	for _, share := range list {
		for _, mount := range mounts {
			if strings.HasPrefix(share.Target, mount.Target+"/") {
				return true
			}
		}
	}
	return false
}

// mountShares mounts shared directories.
func (s *Server) mountShares(list []shares.Share, name string, reply *netcfg.Reply) error {
	if len(list) == 0 {
		return nil
	}
	if !s.opts.Shares {
		reply.Skipped = append(reply.Skipped, "shares")
		return nil
	}
	// A user that is not there is root here; whoever runs a command as that one is told.
	if user, err := proc.LookupUser(s.opts.Host.Etc, name); err == nil {
		for i := range list {
			list[i].UID, list[i].GID = user.UID, user.GID
		}
	}
	token, _ := s.opts.Pin.Get() // whoever asks has it
	if err := s.relay.Start(s.opts.Host.Reaper, token, list); err != nil {
		return wire.AsInfo(err, wire.CodeConfig, "The guest could not mount the shared directories.")
	}
	return nil
}

func utsString[T int8 | uint8](f []T) string {
	b := make([]byte, 0, len(f))
	for _, c := range f {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// readJSON decodes a bounded body; on failure it has answered.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "The request's body is larger than %d bytes.", maxBody))
		return false
	case err != nil:
		// The client is gone; nobody reads an answer.
		return false
	}
	if err := json.Unmarshal(b, v); err != nil {
		writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "The request's body is not what %s expects.", r.URL.Path).Because(err))
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("content-type", "application/json")
	// A failing write means that the client is gone.
	_, _ = w.Write(wire.JSON(v))
}

func writeError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	info := wire.AsInfo(err, wire.CodeInternal, "The agent failed.")
	_, _ = w.Write(wire.JSON(map[string]any{"error": info})) // as above
}

// statusOf chooses the HTTP status for an error's code.
func statusOf(err error) int {
	var info *wire.ErrorInfo
	if !errors.As(err, &info) {
		return http.StatusInternalServerError
	}
	switch info.Code {
	case wire.CodeStreamNotFound, wire.CodeNotFound:
		return http.StatusNotFound
	case wire.CodeStreamRunning, wire.CodeStreamEnded, wire.CodeShutdown:
		return http.StatusConflict
	case wire.CodeInternal, wire.CodeConfig:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// Pin gives the token that the server's streams answer to.
func (s *Server) Pin() *channel.Pin { return s.opts.Pin }
