// Command agent is vmsan's program inside a guest. As PID 1 of an initramfs it
// boots the VM; `agent serve --unix PATH` is the same interface as an ordinary process.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vmsan/guest/internal/api"
	"vmsan/guest/internal/boot"
	"vmsan/guest/internal/channel"
	"vmsan/guest/internal/kinds"
	"vmsan/guest/internal/modules"
	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/shares"
	"vmsan/guest/internal/stream"
)

// build is set at link time; the host compares it with what it expects.
var build = "dev"

// cannotRun is the status of a command that cannot be executed.
const cannotRun = 126

func main() {
	// New files of the agent and of what it starts: rw-r--r--.
	syscall.Umask(0o022)
	proc.HideDescriptors()
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	var err error
	switch {
	case os.Getpid() == 1:
		runInit()
	case modules.IsRequest(os.Args):
		err = modules.Help(os.Args[3])
	case mode == "supervise":
		err = supervise()
	case mode == "beside":
		err = runBeside()
	case mode == shares.RelayMode:
		err = relay()
	case mode == proc.LimitsMode:
		err = proc.RunLimited(os.Args[2:])
		fmt.Fprintf(os.Stderr, "vmsan-agent: %v\n", err)
		os.Exit(cannotRun)
	case mode == "serve":
		err = serve(os.Args[2:])
	case mode == "pause":
		pause()
	case mode == "version":
		fmt.Println(build)
	default:
		err = errors.New("usage: agent serve --unix PATH | agent version")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "vmsan-agent: fatal: ERR_AGENT_START: %v\n", err)
		os.Exit(1)
	}
}

// runInit boots a VM; it does not return.
func runInit() {
	defer func() {
		if p := recover(); p != nil {
			boot.Fatal(fmt.Errorf("the agent panicked: %v", p))
		}
	}()
	boot.IgnoreKeys()
	m, err := boot.Prepare()
	if err != nil {
		boot.Fatal(err)
	}
	if m.Params.Init != "" {
		boot.Fatal(m.ExecInit())
	}
	port, listener, err := m.OpenChannel()
	if err != nil {
		boot.Fatal(err)
	}
	m.Trace("channel open")
	s := newServer(api.Options{
		Mode: api.ModeInit, BootID: randomID(), PowerOff: m.PowerOff, FreezeDisk: m.FreezeDisk, Disk: m.Disk(), Everybody: true,
		Shares: true, Config: &netcfg.Config{System: true, Own: m.Own()},
	}, true, proc.NewCgroups("/sys/fs/cgroup", api.MemTotal()))
	s.EndUnclaimed(unclaimed)
	err = serveChannel(s, port, listener)
	boot.Fatal(fmt.Errorf("the channel to the host broke: %w", err))
}

// relay carries shared directories beside the agent.
func relay() error {
	boot.IgnoreKeys()
	boot.Discard(syscall.SIGTERM)
	m, err := boot.Resume()
	if err != nil {
		return err
	}
	return shares.Relay(m.ServeShares)
}

// ownNetwork: an agent that is an ordinary process has a network namespace of its own.
var ownNetwork bool

// newServer puts the parts together.
func newServer(o api.Options, orphans bool, groups *proc.Cgroups) *api.Server {
	proc.BePatient()
	pin := &channel.Pin{}
	cfg := o.Config
	o.Build, o.Pin, cfg.Pin = build, pin, pin
	o.Limits = stream.DefaultLimits(api.MemTotal())
	freezer := &proc.Freezer{Cgroups: groups}
	cfg.Idle = freezer.Idle
	if cfg.System {
		freezer.Lapsed = netcfg.Reseed
	}
	o.Host = &kinds.Host{Host: run.Host{Reaper: proc.NewReaper(orphans), Cgroups: groups, Freezer: freezer, Env: cfg.Env, Limits: cfg.Limits, Etc: "/etc"}, Fill: cfg.Fill}
	return api.New(o)
}

// serveChannel serves a port or a listener until it fails.
func serveChannel(s *api.Server, port *channel.Port, l net.Listener) error {
	failed := make(chan error, 2)
	go func() { failed <- s.Run() }()
	go func() {
		if port != nil {
			failed <- channel.Run(port, s.Pin(), s.ServeConn)
		} else {
			failed <- channel.Listen(l, s.Pin(), s.ServeConn)
		}
	}()
	return <-failed
}

// serve is the agent as an ordinary process.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	path := flags.String("unix", "", "the socket to listen on")
	flags.StringVar(&proc.OwnHome, "home", "", "the home of its own user, instead of what /etc/passwd says")
	flags.BoolVar(&ownNetwork, "network", false, "configure the cards of the network namespace it runs in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *path == "" || flags.NArg() > 0 {
		return errors.New("usage: agent serve --unix PATH [--home DIR] [--network]")
	}
	l, err := channel.ListenUnix(*path)
	if err != nil {
		return err
	}
	if err := proc.SetSubreaper(); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	exit := make(chan struct{})
	s := newServer(api.Options{
		Mode: api.ModeProcess, BootID: randomID(),
		PowerOff: func(bool) { close(exit) },
		Config:   &netcfg.Config{Network: ownNetwork},
	}, true, nil)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-term
		s.Shutdown(time.Second, false)
	}()
	failed := make(chan error, 1)
	go func() { failed <- serveChannel(s, nil, l) }()
	select {
	case err = <-failed:
	case <-exit:
	}
	// The socket's file is of no use without this process.
	_ = os.Remove(*path)
	return err
}

// pause waits to be ended: the command of a VM whose host wants one and has none.
func pause() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}

// unclaimed is how long a VM waits for a host that configures it.
const unclaimed = 10 * time.Minute

// randomID identifies this run of the agent. The kernel's boot_id is drawn when it
// is first read: in a VM that is yet to be cloned nobody may.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails on Linux
	return hex.EncodeToString(b[:])
}
