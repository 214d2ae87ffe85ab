package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"vmsan/guest/internal/wire"
)

// deaf has a session with a daemon that takes START, says what is given, and takes nothing more; then is called once
// the command has started.
func deaf(t *testing.T, then func(*Session), said ...[]byte) (out string, err error) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { _ = there.Close() })
	written := &bytes.Buffer{}
	open := func(string) (*Conn, error) { return nil, &wire.ErrorInfo{Code: "ERR_VM_NOT_RUNNING"} }
	session := NewSession(&wire.Spec{ID: "0123456789abcdef"}, open, written, io.Discard)
	session.Join = func() {
		go session.Input(bytes.NewReader(make([]byte, 4<<20)), func(b []byte) []byte { return b })
		then(session)
	}
	go func() {
		if _, err := wire.NewReader(there).Next(); err != nil {
			return
		}
		attached := []byte(`{"id":"0123456789abcdef","stdin":"0","stdout":"0","stderr":"0"}`)
		for _, frame := range append([][]byte{wire.AppendRaw(nil, wire.Attached, attached)}, said...) {
			if _, err := there.Write(frame); err != nil {
				return
			}
		}
	}()
	ended := make(chan error, 1)
	go func() {
		exit, err := session.Run(&Conn{Conn: here, in: bufio.NewReader(here)})
		if err == nil && exit.ExitCode != 3 {
			err = errors.New("another exit")
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return written.String(), err
	case <-time.After(time.Minute):
		return "", errors.New("it does not end")
	}
}

// TestExitOfDeafDaemon: the command's end ends the client, whatever is left of its input and whoever waits to send it.
func TestExitOfDeafDaemon(t *testing.T) {
	out, err := deaf(t, func(*Session) {},
		wire.AppendOffset(nil, wire.StdinAck, 0),
		wire.AppendData(nil, wire.Stdout, 0, []byte("all of it")),
		wire.AppendRaw(nil, wire.ExitT, []byte(`{"exitCode":3}`)),
	)
	if err != nil || out != "all of it" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestDetachFromDeafDaemon: so does leaving.
func TestDetachFromDeafDaemon(t *testing.T) {
	if _, err := deaf(t, func(session *Session) { go session.Detach() }); !errors.Is(err, errDetached) {
		t.Error(err)
	}
}

// TestTwoAnswers: an agent cannot have what is kept of the input sent again and again.
func TestTwoAnswers(t *testing.T) {
	again := wire.AppendRaw(nil, wire.Attached, []byte(`{"stdin":"0","stdout":"0","stderr":"0"}`))
	_, err := deaf(t, func(*Session) {}, again, again)
	var final *endError
	if !errors.As(err, &final) {
		t.Error(err)
	}
}

// TestWhatWaitsIsBounded: nor have all of it wait here, by acknowledging what it does not take.
func TestWhatWaitsIsBounded(t *testing.T) {
	here, there := net.Pipe()
	t.Cleanup(func() { _ = there.Close() })
	s := newSender(here)
	for range 2*maxWaiting/inputChunk + 1 {
		s.push(make([]byte, inputChunk))
	}
	if s.waiting > maxWaiting+inputChunk {
		t.Errorf("%d bytes wait", s.waiting)
	}
	if _, err := io.Copy(io.Discard, there); err != nil {
		t.Error(err)
	}
}
