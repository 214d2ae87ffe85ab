package kinds

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// dialWait bounds the time for a connection to be made.
const dialWait = 30 * time.Second

// startDial is kind dial: a connection inside the guest.
func (h *Host) startDial(s *stream.Stream) (stream.Job, error) {
	c, err := net.DialTimeout(s.Spec.Network, s.Spec.Address, dialWait)
	if err != nil {
		return nil, wire.Errorf(wire.CodeDial, "%.256q cannot be reached in the guest.", s.Spec.Address).Because(err)
	}
	return carry(s, c), nil
}

// halfCloser is what TCP and unix connections have.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// carry connects a stream to c: input to it, what it sends to stdout.
func carry(s *stream.Stream, c net.Conn) *work {
	w := begin(s, func(*work) error {
		defer c.Close()
		var up sync.WaitGroup
		up.Add(1)
		go func() {
			defer up.Done()
			// An error here is the peer having closed: what it still sends counts.
			if _, err := io.Copy(struct{ io.Writer }{c}, s.Input()); err != nil {
				s.CloseInput()
			}
			if h, ok := c.(halfCloser); ok {
				_ = h.CloseWrite() // the peer may be gone
			}
		}()
		_, err := io.CopyBuffer(s.Output(stream.Stdout), struct{ io.Reader }{c}, make([]byte, 64<<10))
		s.CloseOutput(stream.Stdout)
		if err != nil {
			// The peer has cut the connection: nobody takes the input any more.
			s.CloseInput()
		}
		up.Wait()
		if errors.Is(err, syscall.ECONNRESET) {
			return wire.Errorf(wire.CodeDial, "The connection to %.256q was cut.", s.Spec.Address).Because(err)
		}
		return nil
	})
	w.onStop(func() {
		if t, ok := c.(*net.TCPConn); ok {
			// The peer is to see a cut connection, not the end of the data.
			_ = t.SetLinger(0)
		}
		_ = c.Close() // ends both copies
	})
	return w
}

// startListen is kind listen: each connection becomes a stream of kind accepted.
func (h *Host) startListen(r *stream.Registry) stream.Starter {
	return func(s *stream.Stream) (stream.Job, error) {
		l, err := net.Listen(s.Spec.Network, s.Spec.Address)
		if err != nil {
			return nil, wire.Errorf(wire.CodeListen, "The guest cannot listen on %.256q.", s.Spec.Address).Because(err)
		}
		s.CloseInput()
		w := begin(s, func(*work) error {
			defer l.Close()
			out := s.Output(stream.Stdout)
			if _, err := fmt.Fprintf(out, "%s\n", wire.JSON(map[string]string{"address": l.Addr().String()})); err != nil {
				return err
			}
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				if err != nil {
					// No descriptors left, or the peer is gone: try again.
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if err := accepted(r, c, s, out); err != nil {
					return err
				}
			}
		})
		w.onStop(func() { _ = l.Close() })
		return w, nil
	}
}

// pending carries a connection to the Starter of kind accepted.
var pending sync.Map // id → net.Conn

func accepted(r *stream.Registry, c net.Conn, parent *stream.Stream, out io.Writer) error {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails on Linux
	id := hex.EncodeToString(b[:])
	pending.Store(id, c)
	st, _, err := r.Start(&wire.Spec{ID: id, Kind: "accepted", Stdin: true, Network: parent.Spec.Network, Address: parent.Spec.Address, Label: parent.Spec.Label})
	if err != nil {
		// Too many streams: the peer sees a closed connection, the listener goes on.
		pending.Delete(id)
		_ = c.Close()
		return nil
	}
	st.CloseUnattached()
	_, err = fmt.Fprintf(out, "%s\n", wire.JSON(map[string]string{"id": id, "peer": c.RemoteAddr().String()}))
	return err
}

func startAccepted(s *stream.Stream) (stream.Job, error) {
	c, ok := pending.LoadAndDelete(s.Spec.ID)
	if !ok {
		return nil, wire.Errorf(wire.CodeRequest, "Streams of kind accepted are made by a listener.")
	}
	return carry(s, c.(net.Conn)), nil
}
