package channel

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"testing"
)

// recorder writes down what a Scanner reports.
type recorder struct {
	nonces []Nonce
	data   []byte
	open   bool
	kills  int
}

func (r *recorder) Data(p []byte) {
	if !r.open {
		panic("data without a session")
	}
	r.data = append(r.data, p...)
}
func (r *recorder) Kill() {
	if !r.open {
		panic("killed twice")
	}
	r.open = false
	r.kills++
}
func (r *recorder) Open(_ Token, n Nonce) {
	if r.open {
		panic("opened twice")
	}
	r.open, r.data = true, nil
	r.nonces = append(r.nonces, n)
}

func reset(t Token, n Nonce) []byte { return append(append([]byte(Magic), t[:]...), n[:]...) }

func randomReset(rnd *rand.Rand) (t Token, n Nonce) {
	rnd.Read(t[:])
	rnd.Read(n[:])
	return
}

func TestResetVectors(t *testing.T) {
	b, err := os.ReadFile("../../../protocol/vectors/reset.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct{ Token, Nonce, Request, Echo string }
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		request, _ := hex.DecodeString(c.Request)
		host, agent := net.Pipe()
		opened := make(chan net.Conn, 1)
		go func() { _ = Run(pipe{agent}, &Pin{}, func(c net.Conn) { opened <- c }) }()
		go func() { _, _ = host.Write(append([]byte("noise"), request...)) }()
		echo := make([]byte, 32)
		if _, err := io.ReadFull(host, echo); err != nil || hex.EncodeToString(echo) != c.Echo {
			t.Errorf("%x %v", echo, err)
		}
		<-opened
		_ = host.Close()
	}
}

type pipe struct{ net.Conn }

// TestScanner feeds streams of noise, complete and cut RESETs and data, in
// pieces of every size, and checks that the last session sees exactly its bytes.
func TestScanner(t *testing.T) {
	for seed := range 3000 {
		rnd := rand.New(rand.NewSource(int64(seed)))
		token, nonce := randomReset(rnd)
		var in []byte
		noise := make([]byte, rnd.Intn(40))
		rnd.Read(noise)
		in = append(in, noise...)
		// What a host that was killed again and again leaves in the port.
		for range rnd.Intn(4) {
			_, n := randomReset(rnd)
			whole := reset(token, n)
			in = append(in, whole[:rnd.Intn(len(whole)+1)]...)
			if rnd.Intn(2) == 0 {
				junk := make([]byte, rnd.Intn(60))
				rnd.Read(junk)
				// Junk is only possible behind a complete RESET.
				in = append(in, reset(token, n)...)
				in = append(in, junk...)
			}
		}
		in = append(in, reset(token, nonce)...)
		data := make([]byte, rnd.Intn(100))
		rnd.Read(data)
		// Magic ends nothing once a token is pinned.
		data = append([]byte(prefaceStart+Magic), data...)
		in = append(in, data...)
		rec := &recorder{}
		s := NewScanner(&Pin{}, rec)
		step := 1 + rnd.Intn(1+rnd.Intn(70))
		for p := in; len(p) > 0; {
			n := min(step, len(p))
			s.Feed(p[:n])
			p = p[n:]
		}
		if !rec.open || rec.nonces[len(rec.nonces)-1] != nonce || !bytes.Equal(rec.data, data) {
			t.Fatalf("seed %d step %d: open %v, %d sessions, data %x want %x", seed, step, rec.open, len(rec.nonces), rec.data, data)
		}
	}
}

// TestNothingIsHeldBack: bytes that could begin a token are handed on at once.
func TestNothingIsHeldBack(t *testing.T) {
	rec := &recorder{}
	s := NewScanner(&Pin{}, rec)
	var token Token // zeros, like the data
	s.Feed(append(reset(token, Nonce{1}), prefaceStart...))
	rec.data = nil
	for i := range 15 {
		s.Feed([]byte{0})
		if len(rec.data) != i+1 {
			t.Fatalf("%d bytes of %d", len(rec.data), i+1)
		}
	}
}

func TestNewTokenCountsFromTheNextReset(t *testing.T) {
	rec, pin := &recorder{}, &Pin{}
	s := NewScanner(pin, rec)
	rnd := rand.New(rand.NewSource(1))
	old, n1 := randomReset(rnd)
	fresh, n2 := randomReset(rnd)
	s.Feed(append(reset(old, n1), prefaceStart...))
	pin.Set(fresh)
	s.Feed([]byte("still open"))
	s.Feed(reset(old, n2))
	if !rec.open || len(rec.nonces) != 1 {
		t.Fatal("the old token still counts")
	}
	s.Feed(reset(fresh, n2))
	if len(rec.nonces) != 2 || rec.nonces[1] != n2 {
		t.Fatal("the new token does not count")
	}
}

func FuzzScanner(f *testing.F) {
	f.Add(reset(Token{1}, Nonce{2}), 3)
	f.Fuzz(func(_ *testing.T, b []byte, step int) {
		if step <= 0 || step > 1<<16 {
			step = 7
		}
		s := NewScanner(&Pin{}, &recorder{})
		for len(b) > 0 {
			n := min(step, len(b))
			s.Feed(b[:n])
			b = b[n:]
		}
	})
}

// TestReplace: a session whose writer is stuck is replaced, and never writes again.
func TestReplace(t *testing.T) {
	host, agent := net.Pipe()
	sessions := make(chan net.Conn, 10)
	done := make(chan struct{})
	go func() { defer close(done); _ = Run(agent, &Pin{}, func(c net.Conn) { sessions <- c }) }()
	token := Token{7}
	for i := range 50 {
		nonce := Nonce{byte(i), 1}
		if _, err := host.Write(reset(token, nonce)); err != nil {
			t.Fatal(err)
		}
		want := append(append([]byte(nil), token[:]...), nonce[:]...)
		var seen []byte
		for one := make([]byte, 1); !bytes.HasSuffix(seen, want); {
			if _, err := host.Read(one); err != nil {
				t.Fatal(err)
			}
			seen = append(seen, one[0])
		}
		c := <-sessions
		msg := []byte(fmt.Sprintf("hello %d", i))
		go func() { _, _ = host.Write(msg) }()
		got := make([]byte, len(msg))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("%q %v", got, err)
		}
		// Writers that nobody reads: the next RESET must get through.
		for range 3 {
			go func() {
				for {
					if _, err := c.Write(make([]byte, 100)); err != nil {
						return
					}
				}
			}()
		}
	}
	_ = host.Close()
	<-done
}
