package client

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"vmsan/guest/internal/wire"
)

const (
	backoffMin = 5 * time.Millisecond
	backoffMax = time.Second
	// patience is how long a lost connection is tried again: after that the agent may drop output.
	patience = time.Minute
	// noReader is the offset of an ACK which says that nobody reads that output any more.
	noReader = 1<<64 - 1
)

// errHandOver says that nothing has been started and nothing taken from the input: the other client can do all
// of it, and has the words for why it fails.
var errHandOver = errors.New("hand over")

// errDetached says that the user left; the command goes on.
var errDetached = errors.New("detached")

// Session is one command in a guest, joined to this process, which survives broken connections.
type Session struct {
	Spec *wire.Spec
	// Open connects to `/v1/streams` or `/v1/streams/ID` of the VM.
	Open func(path string) (*Conn, error)
	// Join is called once the command has been started: what reads the input begins there.
	Join func()
	// KeepsFailure says that a command which cannot be started is an error here, and nothing to hand over.
	KeepsFailure bool

	out [2]*output
	in  *input

	mu sync.Mutex
	// conn is nil while there is no connection; attached: the agent has answered on it.
	conn          *Conn
	sender        *sender
	attached      bool
	everAttached  bool
	detached      bool
	signals       [][]byte
	rows, columns uint16
}

// NewSession prepares a session with the outputs stdout and stderr.
func NewSession(spec *wire.Spec, open func(string) (*Conn, error), stdout, stderr io.Writer) *Session {
	s := &Session{Spec: spec, Open: open, Join: func() {}, in: newInput(spec.TTY != nil)}
	for i, to := range []io.Writer{stdout, stderr} {
		stream := byte(i + 1)
		ack := func(offset uint64) { s.sendAttached(wire.AppendStreamOffset(nil, wire.Ack, stream, offset)) }
		s.out[i] = newOutput(to, ack, func() { ack(noReader) })
	}
	return s
}

// Signal tells the command, or all it has started. Without a connection it waits for the next one.
func (s *Session) Signal(number byte, tree bool) {
	frame := wire.Encode(wire.Frame{Type: wire.Signal, Signal: number, Tree: tree})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached {
		s.write(frame)
	} else {
		s.signals = append(s.signals, frame)
	}
}

// Resize tells the command's terminal its size.
func (s *Session) Resize(rows, columns uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.columns = rows, columns
	if s.attached {
		s.write(wire.Encode(wire.Frame{Type: wire.Resize, Rows: rows, Cols: columns}))
	}
}

// Input sends what r gives as the command's input; filter may take bytes away.
func (s *Session) Input(r io.Reader, filter func([]byte) []byte) { s.in.read(r, filter) }

// Detach leaves the command running: Run gives errDetached.
func (s *Session) Detach() {
	s.mu.Lock()
	s.detached = true
	conn, sender := s.conn, s.sender
	s.write(wire.AppendRaw(nil, wire.Detach, nil))
	s.mu.Unlock()
	if conn != nil {
		sender.flush()
		// Ends the reader; the daemon has what was written.
		_ = conn.Close()
	}
}

// Run starts the command on conn and waits for its end, connecting again whenever that is lost.
func (s *Session) Run(conn *Conn) (*wire.Exit, error) {
	defer s.in.close()
	lostAt, wait := time.Now(), backoffMin
	for {
		var err error
		if conn != nil {
			var exit *wire.Exit
			var attached bool
			exit, attached, err = s.converse(conn)
			if err == nil {
				return exit, nil
			}
			if attached {
				lostAt, wait = time.Now(), backoffMin
			}
		} else if conn, err = s.Open(s.path()); err == nil {
			continue
		}
		conn = nil
		s.mu.Lock()
		detached := s.detached
		s.mu.Unlock()
		var final *endError
		switch {
		case detached:
			return nil, errDetached
		case errors.Is(err, errHandOver), errors.As(err, &final), Fatal(err):
			return nil, err
		case asleep(err):
			// The guest's time stands still too.
			lostAt, wait = time.Now(), backoffMin
		case time.Since(lostAt) >= patience:
			return nil, lost(s.Spec.ID, err)
		}
		time.Sleep(wait)
		wait = min(wait*2, backoffMax)
	}
}

func (s *Session) path() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.everAttached {
		return "/v1/streams/" + s.Spec.ID
	}
	return "/v1/streams"
}

// converse uses one connection until the command or the connection ends.
func (s *Session) converse(conn *Conn) (exit *wire.Exit, attached bool, err error) {
	s.mu.Lock()
	s.conn, s.sender, s.attached = conn, newSender(conn), false
	if s.everAttached {
		_, stdout := s.out[0].offsets()
		_, stderr := s.out[1].offsets()
		s.write(wire.AppendRaw(nil, wire.Attach, wire.JSON(wire.AttachRequest{
			Client: s.Spec.Client, Stdout: wire.U64(stdout), Stderr: wire.U64(stderr),
		})))
	} else {
		s.write(wire.AppendRaw(nil, wire.Start, wire.JSON(s.Spec)))
	}
	s.mu.Unlock()
	defer func() {
		s.in.disconnect()
		s.mu.Lock()
		sender := s.sender
		attached, s.attached, s.conn = s.attached, false, nil
		s.mu.Unlock()
		if exit != nil {
			sender.flush()
		}
		sender.close()
		_ = conn.Close()
	}()
	frames := wire.NewReader(conn)
	for {
		f, err := frames.Next()
		if err == nil {
			exit, err = s.take(f)
		}
		var info *wire.ErrorInfo
		if errors.As(err, &info) && info.Code == wire.CodeRequest {
			err = nonsense(info.Message)
		}
		if exit != nil || err != nil {
			return exit, false, err
		}
	}
}

// take acts on one frame. An exit is the end.
func (s *Session) take(f wire.Frame) (*wire.Exit, error) {
	switch f.Type {
	case wire.Attached:
		return nil, s.takeAttached(f.Payload)
	case wire.Stdout, wire.Stderr:
		if !s.out[f.Type-wire.Stdout].accept(f.Offset, f.Data) {
			return nil, nonsense("Its output jumps.")
		}
	case wire.StdinAck:
		if !s.in.acknowledge(f.Offset) {
			return nil, nonsense("The agent acknowledges input that was never sent.")
		}
	case wire.Gap:
		if f.Stream == 1 || f.Stream == 2 {
			s.out[f.Stream-1].skipTo(f.To)
		}
	case wire.ExitT:
		return s.takeExit(f.Payload)
	case wire.Fail:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.everAttached && !s.KeepsFailure {
			return nil, errHandOver
		}
		return nil, failure(f.Payload, "Cannot run the command")
	}
	// Other types are a later version's: the protocol says to ignore them.
	return nil, nil
}

func (s *Session) takeAttached(payload []byte) error {
	var reply wire.AttachedReply
	if err := json.Unmarshal(payload, &reply); err != nil {
		return nonsense("ATTACHED is not what it should be.")
	}
	s.out[0].skipTo(uint64(reply.Stdout))
	s.out[1].skipTo(uint64(reply.Stderr))
	s.mu.Lock()
	if s.attached {
		s.mu.Unlock()
		return nonsense("It answers twice.")
	}
	first := !s.everAttached
	s.attached, s.everAttached = true, true
	if s.rows > 0 {
		s.write(wire.Encode(wire.Frame{Type: wire.Resize, Rows: s.rows, Cols: s.columns}))
	}
	for _, frame := range s.signals {
		s.write(frame)
	}
	s.signals = nil
	for i, o := range s.out {
		if o.isUnread() {
			s.write(wire.AppendStreamOffset(nil, wire.Ack, byte(i+1), noReader))
		}
	}
	s.mu.Unlock()
	if !s.in.connect(uint64(reply.Stdin), s.sendAttached) {
		return nonsense("The agent acknowledges input that was never sent.")
	}
	if first {
		s.Join()
	}
	return nil
}

// takeExit waits until every byte of output is written and tells the agent that it may forget the stream.
func (s *Session) takeExit(payload []byte) (*wire.Exit, error) {
	exit := &wire.Exit{}
	if err := json.Unmarshal(payload, exit); err != nil || exit.ExitCode < 0 || exit.ExitCode > 255 {
		return nil, nonsense("An exit code that is not a number from 0 to 255.")
	}
	if exit.Error != nil {
		exit.Error = checked(exit.Error, "The guest's agent failed")
	}
	var last []byte
	for i, o := range s.out {
		received, _ := o.offsets()
		last = wire.AppendStreamOffset(last, wire.Ack, byte(i+1), received)
	}
	s.sendAttached(wire.AppendStreamOffset(last, wire.Ack, 0, 0))
	s.in.close()
	for _, o := range s.out {
		o.drain()
	}
	return exit, nil
}

// sendAttached writes where the agent has answered; else what is sent is said again after ATTACHED.
func (s *Session) sendAttached(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached {
		s.write(frame)
	}
}

// write puts a frame on the connection, which is the connection's then; the lock is held.
func (s *Session) write(frame []byte) {
	if s.conn != nil {
		s.sender.push(frame)
	}
}
