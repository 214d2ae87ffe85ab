// Command vmsan-nethelper opens sockets inside VMs' network namespaces for the daemon, and runs programs there.
//
// Node cannot enter a namespace; this program can. It is started by the daemon with Node's
// inter-process channel (NODE_CHANNEL_FD: a unix socket with one JSON message a line) and hands
// sockets over that channel the way Node's own children do: a NODE_HANDLE message with the
// descriptor attached. It holds no policy and ends when the channel closes. Started as `vmsan-nethelper
// certify` it makes one certificate, for which Node has no code either.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// request is one line from the daemon.
type request struct {
	ID int64  `json:"id"`
	Op string `json:"op"`
	// Netns is the path of the namespace to act in.
	Netns string `json:"netns"`
	// Address is host:port.
	Address     string `json:"address"`
	Transparent bool   `json:"transparent"`
	// TimeoutMs bounds connect.
	TimeoutMs int64 `json:"timeoutMs"`
	// Writes are files below /proc/sys with their new content.
	Writes map[string]string `json:"writes"`
	// Mark and Table are those of a routing rule.
	Mark  uint32 `json:"mark"`
	Table uint32 `json:"table"`
	// Vm and Log name a packet log, Group is where it comes from.
	Vm    string `json:"vm"`
	Log   int64  `json:"log"`
	Group uint16 `json:"group"`
	log   *packetLog
	// Argv and Input are a program's, for run; TimeoutMs bounds it as well.
	Argv  []string `json:"argv"`
	Input string   `json:"input"`
	// Cmd is set on messages of Node itself (acknowledgements), which are ignored.
	Cmd string `json:"cmd"`
}

// reply answers one request.
type reply struct {
	ID    int64  `json:"id"`
	OK    bool   `json:"ok"`
	Errno string `json:"errno,omitempty"`
	Error string `json:"error,omitempty"`
	// Run is how a program ended.
	Run *ending `json:"run,omitempty"`
}

// handle wraps a reply that carries a socket, in the form Node's parent side understands.
type handle struct {
	Cmd       string `json:"cmd"`
	Type      string `json:"type"`
	DgramType string `json:"dgramType,omitempty"`
	Msg       reply  `json:"msg"`
}

// channel is the way back to the daemon.
type channel struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// send writes one message, with a descriptor if fd is not negative; the descriptor is closed.
func (c *channel) send(message any, fd int) {
	line, err := json.Marshal(message)
	if err != nil {
		panic(err) // only our own plain structs get here
	}
	line = append(line, '\n')
	var rights []byte
	if fd >= 0 {
		rights = syscall.UnixRights(fd)
		defer syscall.Close(fd)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, _, err := c.conn.WriteMsgUnix(line, rights, nil)
	for err == nil && n < len(line) {
		line = line[n:]
		n, err = c.conn.Write(line)
	}
	if err != nil {
		os.Exit(0) // the daemon is gone
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "certify" {
		if err := certify(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "vmsan-nethelper:", err)
			os.Exit(1)
		}
		return
	}
	fd, err := strconv.Atoi(os.Getenv("NODE_CHANNEL_FD"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmsan-nethelper is started by vmsan's daemon, not by hand")
		os.Exit(2)
	}
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "channel")
	conn, err := net.FileConn(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmsan-nethelper: bad channel:", err)
		os.Exit(2)
	}
	file.Close()
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		fmt.Fprintln(os.Stderr, "vmsan-nethelper: the channel is not a unix socket")
		os.Exit(2)
	}
	serve(unix)
}

// serve reads requests until the channel closes; each runs by itself.
func serve(conn *net.UnixConn) {
	out := &channel{conn: conn}
	logs := newLogs(out)
	slots := make(chan struct{}, 256) // most requests at a time
	// A guest that answers nothing has whoever connects to it wait: nobody else's requests wait behind those.
	connects := make(chan struct{}, 256)
	reader := bufio.NewReaderSize(conn, 64<<10)
	for {
		line, err := reader.ReadBytes('\n')
		if err != nil {
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "vmsan-nethelper:", err)
			}
			return
		}
		var req request
		if json.Unmarshal(line, &req) != nil || req.Cmd != "" || req.Op == "" {
			continue // Node's own acknowledgements
		}
		if req.Op == "connect" {
			go func() {
				connects <- struct{}{}
				defer func() { <-connects }()
				answer(out, logs, req)
			}()
			continue
		}
		switch req.Op {
		case "log":
			req.log = logs.expect(req.Vm, req.Log)
		case "unlog":
			logs.stop(req.Vm, req.Log)
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			answer(out, logs, req)
		}()
	}
}

// answer carries out one request.
func answer(out *channel, logs *logs, req request) {
	fd, kind, dgram := -1, "", ""
	var err error
	var ended *ending
	switch req.Op {
	case "hello", "unlog":
	case "listen":
		kind = "net.Server"
		fd, err = listenTCP(req.Netns, req.Address, req.Transparent)
	case "connect":
		kind = "net.Socket"
		fd, err = connectTCP(req.Netns, req.Address, req.TimeoutMs)
	case "udp":
		kind = "dgram.Socket"
		fd, dgram, err = bindUDP(req.Netns, req.Address)
	case "sysctl":
		err = writeSysctls(req.Netns, req.Writes)
	case "rule6":
		err = addMarkRule6(req.Netns, req.Mark, req.Table)
	case "run":
		ended, err = runIn(req.Netns, req.Argv, req.Input, req.TimeoutMs)
	case "log":
		err = logs.start(req.log, req.Netns, req.Group)
	default:
		err = fmt.Errorf("no operation %q", req.Op)
	}
	result := reply{ID: req.ID, OK: err == nil, Run: ended}
	if err != nil {
		result.Error = err.Error()
		result.Errno = errnoName(err)
		out.send(result, -1)
		return
	}
	if fd < 0 {
		out.send(result, -1)
		return
	}
	out.send(handle{Cmd: "NODE_HANDLE", Type: kind, DgramType: dgram, Msg: result}, fd)
}
