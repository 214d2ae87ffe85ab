package sshd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/run"
	"vmsan/guest/internal/wire"
)

// maxSessionEnv bounds the variables that a client may set for one session.
const maxSessionEnv = 1 << 10

// session is one session of a client: a command, a shell or sftp, with or without a terminal.
type session struct {
	server *Server
	ch     ssh.Channel
	env    []string
	tty    *wire.TTY
	modes  string
	input  *input
	// then is what follows the reply to a request: the session's end must not overtake it.
	then func()

	mu      sync.Mutex
	command *run.Command
	rows    uint16
	cols    uint16
}

type ptyRequest struct {
	Term          string
	Cols, Rows    uint32
	Width, Height uint32
	Modes         string
}

type windowChange struct{ Cols, Rows, Width, Height uint32 }

// session serves one session to its end.
func (s *Server) session(c ssh.NewChannel) {
	ch, requests, err := c.Accept()
	if err != nil {
		return // the connection is over
	}
	e := &session{server: s, ch: ch}
	for r := range requests {
		reply(r, e.request(r))
		if e.then != nil {
			go e.then()
			e.then = nil
		}
	}
	// The client has closed its channel, or is gone.
	if e.input != nil {
		e.input.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.command != nil {
		e.command.Hangup()
	}
}

// request carries out one request of the session.
func (e *session) request(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		var v struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &v) != nil || v.Name == "" || strings.ContainsAny(v.Name, "=\x00") ||
			strings.Contains(v.Value, "\x00") || len(e.env) >= maxSessionEnv {
			return false
		}
		e.env = append(e.env, v.Name+"="+v.Value)
		return true
	case "pty-req":
		var p ptyRequest
		if e.input != nil || ssh.Unmarshal(r.Payload, &p) != nil || len(p.Term) > 64 || strings.ContainsAny(p.Term, "\x00=") {
			return false
		}
		e.tty = &wire.TTY{Rows: clamp(p.Rows), Cols: clamp(p.Cols), Term: p.Term}
		e.modes = p.Modes
		return true
	case "window-change":
		var w windowChange
		if ssh.Unmarshal(r.Payload, &w) != nil {
			return false
		}
		return e.resize(clamp(w.Rows), clamp(w.Cols)) == nil
	case "auth-agent-req@openssh.com":
		path, err := e.server.agent.path(e.server)
		if err != nil {
			return false
		}
		e.env = append(e.env, "SSH_AUTH_SOCK="+path)
		return true
	case "shell":
		return e.start(func() (*run.Request, error) { return &run.Request{}, nil })
	case "exec":
		var v struct{ Command string }
		if ssh.Unmarshal(r.Payload, &v) != nil {
			return false
		}
		return e.start(func() (*run.Request, error) { return commandLine(e.server.user, v.Command) })
	case "subsystem":
		var v struct{ Name string }
		if ssh.Unmarshal(r.Payload, &v) != nil || v.Name != "sftp" {
			return false
		}
		return e.start(func() (*run.Request, error) {
			return &run.Request{Program: e.server.program, Argv: []string{"vmsan-ssh", "sftp"}}, nil
		})
	case "signal":
		var v struct{ Name string }
		if ssh.Unmarshal(r.Payload, &v) != nil {
			return false
		}
		sig, ok := proc.ParseSignal(v.Name)
		e.mu.Lock()
		c := e.command
		e.mu.Unlock()
		return ok && c != nil && c.Signal(sig, false) == nil
	}
	return false
}

// clamp takes a size of a terminal.
func clamp(n uint32) uint16 { return uint16(min(n, 0xffff)) }

func (e *session) resize(rows, cols uint16) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tty == nil || rows == 0 || cols == 0 {
		return errors.New("no terminal, or no size")
	}
	if e.command == nil {
		e.tty.Rows, e.tty.Cols = rows, cols
		return nil
	}
	return e.command.Resize(rows, cols)
}

// commandLine is what a client asks for as one text: the user's shell reads it. In a guest without one its
// words are run, if it has no more than words.
func commandLine(user *proc.User, line string) (*run.Request, error) {
	if strings.Contains(line, "\x00") {
		return nil, wire.Errorf(wire.CodeRequest, "The command contains a NUL byte.")
	}
	file, argv, err := proc.LoginShell(user)
	if err == nil {
		return &run.Request{Program: file, Argv: []string{strings.TrimPrefix(argv[0], "-"), "-c", line}}, nil
	}
	words, wordsErr := splitWords(line)
	if wordsErr != nil {
		return nil, wire.AsInfo(err, wire.CodeNoShell, "").Because(wordsErr)
	}
	return &run.Request{Argv: words}, nil
}

// start begins the session's work; only once.
func (e *session) start(what func() (*run.Request, error)) bool {
	if e.input != nil {
		return false
	}
	e.input = newInput(e.ch, e.tty != nil)
	r, err := what()
	var c *run.Command
	if err == nil {
		c, err = e.startCommand(r)
	}
	if err != nil {
		e.input.Close()
		e.then = func() { e.refuse(err) }
		return true
	}
	e.mu.Lock()
	e.command = c
	e.mu.Unlock()
	e.then = func() { e.finish(c) }
	return true
}

func (e *session) startCommand(r *run.Request) (*run.Command, error) {
	s := e.server
	r.User, r.TTY, r.Stdin, r.Workdir = s.user, e.tty, true, s.home
	// What servers of ssh say of connections without addresses.
	r.Env = append([]string{"SSH_CLIENT=UNKNOWN 65535 65535", "SSH_CONNECTION=UNKNOWN 65535 UNKNOWN 65535"}, e.env...)
	if e.tty != nil {
		r.SetModes = func(f *os.File) {
			if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil {
				r.Env = append(r.Env, "SSH_TTY="+name)
			}
			setModes(f, e.modes)
		}
	}
	return s.host.Start(r, e)
}

// refuse ends a session whose command could not start, with the status that a shell would give.
func (e *session) refuse(err error) {
	status := uint32(255)
	switch wire.AsInfo(err, wire.CodeInternal, "").Code {
	case wire.CodeNotFound, wire.CodeNoShell:
		status = 127
	case wire.CodeNotExecutable:
		status = 126
	}
	_, _ = io.WriteString(e.ch.Stderr(), explain(err)) // the client is gone
	e.exit("exit-status", ssh.Marshal(struct{ Status uint32 }{status}))
}

// finish waits for the command and tells the client how it ended.
func (e *session) finish(c *run.Command) {
	exit := c.Wait()
	c.Close()
	if exit.Signal == "" {
		e.exit("exit-status", ssh.Marshal(struct{ Status uint32 }{uint32(exit.ExitCode)}))
	} else {
		e.exit("exit-signal", ssh.Marshal(struct {
			Signal     string
			CoreDumped bool
			Message    string
			Language   string
		}{Signal: strings.TrimPrefix(exit.Signal, "SIG")}))
	}
	c.Release()
}

// exit says how the session ended and ends it; whoever is gone needs not be told. A client whose input
// has ended too closes the channel at the end of the output: nothing that comes behind would reach it.
func (e *session) exit(kind string, payload []byte) {
	_, _ = e.ch.SendRequest(kind, false, payload)
	_ = e.ch.CloseWrite()
	_ = e.ch.Close()
}

// Input implements run.Ends.
func (e *session) Input() io.Reader { return e.input }

// CloseInput implements run.Ends.
func (e *session) CloseInput() { e.input.Close() }

// Output implements run.Ends.
func (e *session) Output(which int) io.Writer {
	if which == 0 {
		return e.ch
	}
	return e.ch.Stderr()
}

// CloseOutput implements run.Ends: the channel ends as a whole.
func (e *session) CloseOutput(int) {}

// Ended implements run.Ends.
func (e *session) Ended() bool { return e.input.closed() }

// input is what the client sends, for one reader whose waiting can be ended.
type input struct {
	pipe *io.PipeReader
	tty  bool
	done chan struct{}
	once sync.Once
	eof  bool
}

func newInput(ch io.Reader, tty bool) *input {
	r, w := io.Pipe()
	in := &input{pipe: r, tty: tty, done: make(chan struct{})}
	go func() {
		_, err := io.CopyBuffer(w, struct{ io.Reader }{ch}, make([]byte, 64<<10))
		_ = w.CloseWithError(err) // nil is the end of the input
		if err != nil {
			// Nobody reads any more; what comes is taken, so that the client is not kept waiting.
			_, _ = io.Copy(io.Discard, ch)
		}
	}()
	return in
}

// Read gives io.EOF at the end of the input. On a terminal that is typed, once, and its command goes on.
func (i *input) Read(p []byte) (int, error) {
	if i.eof && i.tty {
		<-i.done
		return 0, syscall.EBADF
	}
	n, err := i.pipe.Read(p)
	i.eof = i.eof || errors.Is(err, io.EOF)
	return n, err
}

// Close ends reads that wait.
func (i *input) Close() {
	i.once.Do(func() { close(i.done) })
	_ = i.pipe.Close() // cannot fail
}

func (i *input) closed() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}
