package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"testing"
)

type vector struct {
	Name   string          `json:"name"`
	Type   Type            `json:"type"`
	JSON   json.RawMessage `json:"json"`
	Offset string          `json:"offset"`
	From   string          `json:"from"`
	To     string          `json:"to"`
	Data   *string         `json:"data"`
	Rows   uint16          `json:"rows"`
	Cols   uint16          `json:"cols"`
	Signal byte            `json:"signal"`
	Tree   bool            `json:"tree"`
	Stream byte            `json:"stream"`
	Hex    string          `json:"hex"`
}

// TestVectors decodes and encodes every frame that both ends agree on.
func TestVectors(t *testing.T) {
	b, err := os.ReadFile("../../../protocol/vectors/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 11 {
		t.Fatalf("only %d cases", len(file.Cases))
	}
	for _, v := range file.Cases {
		t.Run(v.Name, func(t *testing.T) {
			raw, err := hex.DecodeString(v.Hex)
			if err != nil {
				t.Fatal(err)
			}
			r := NewReader(bytes.NewReader(raw))
			f, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			num := func(s string) uint64 {
				n, err := strconv.ParseUint(s, 10, 64)
				if s != "" && err != nil {
					t.Fatal(err)
				}
				return n
			}
			if f.Type != v.Type || f.Rows != v.Rows || f.Cols != v.Cols || f.Signal != v.Signal || f.Tree != v.Tree || f.Stream != v.Stream {
				t.Errorf("decoded %+v", f)
			}
			if v.Offset != "" && f.Offset != num(v.Offset) || v.From != "" && (f.Offset != num(v.From) || f.To != num(v.To)) {
				t.Errorf("offsets %d %d", f.Offset, f.To)
			}
			if v.Data != nil && hex.EncodeToString(f.Data) != *v.Data {
				t.Errorf("data %x", f.Data)
			}
			if v.JSON != nil {
				var want, got any
				if json.Unmarshal(v.JSON, &want) != nil || json.Unmarshal(f.Payload, &got) != nil || !bytes.Equal(JSON(want), JSON(got)) {
					t.Errorf("json %s", f.Payload)
				}
			}
			if !bytes.Equal(Encode(f), raw) {
				t.Errorf("encoded %x", Encode(f))
			}
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("behind the frame: %v", err)
			}
		})
	}
}

func TestReaderErrors(t *testing.T) {
	for name, c := range map[string]struct {
		bytes  string
		code   string
		broken bool
	}{
		"too long":        {bytes: "01" + "00040001", code: CodeRequest},
		"START too long":  {bytes: "00" + "00800001", code: CodeRequest},
		"cut header":      {bytes: "0100", broken: true},
		"cut payload":     {bytes: "01" + "0000000a" + "0000", broken: true},
		"short offset":    {bytes: "01" + "00000002" + "0000", code: CodeRequest},
		"ACK of output 3": {bytes: "05" + "00000009" + "03" + "0000000000000000", code: CodeRequest},
		"DETACH + bytes":  {bytes: "07" + "00000001" + "00", code: CodeRequest},
	} {
		raw, err := hex.DecodeString(c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewReader(bytes.NewReader(raw)).Next()
		var info *ErrorInfo
		if c.broken && !errors.Is(err, io.ErrUnexpectedEOF) || c.code != "" && (!errors.As(err, &info) || info.Code != c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Unknown types are left to the caller, which ignores them.
	f, err := NewReader(bytes.NewReader([]byte{0x7f, 0, 0, 0, 1, 9})).Next()
	if err != nil || f.Type != 0x7f {
		t.Error(f, err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 65})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			fr, err := r.Next()
			if err != nil {
				return
			}
			if again, err := NewReader(bytes.NewReader(Encode(fr))).Next(); err != nil || again.Type != fr.Type || !bytes.Equal(again.Data, fr.Data) || again.Offset != fr.Offset {
				t.Fatalf("%+v became %+v %v", fr, again, err)
			}
		}
	})
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"id":"0123456789abcdef","kind":"exec","argv":["true"],"tty":{"rows":1,"cols":2,"term":"x"}}`))
	f.Add([]byte(`{"id":"0123456789abcdef","kind":"untar","path":"/x","graceMs":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSpec(b)
		if (s == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if err != nil {
			var info *ErrorInfo
			if !errors.As(err, &info) || info.Code == "" || info.Message == "" {
				t.Fatalf("%v", err)
			}
		}
	})
}

// What people get wrong is answered with what to do about it.
func TestSpecRemedies(t *testing.T) {
	_, err := ParseSpec([]byte(`{"id":"0123456789abcdef","client":"0123456789abcdef","kind":"exec","argv":["true"],"workdir":"tmp"}`))
	var info *ErrorInfo
	if !errors.As(err, &info) || info.Code != CodeRequest || info.Fix != "Begin it with a slash." {
		t.Errorf("%v", err)
	}
}
