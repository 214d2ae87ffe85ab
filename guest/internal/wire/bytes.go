package wire

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// Strings that stand for bytes (arguments, environment, paths) are UTF-8 in
// JSON; a byte that is no part of UTF-8 is written as the escape \udc80 to
// \udcff (section 4), which encoding/json neither writes nor keeps.

const hexDigits = "0123456789abcdef"

// QuoteBytes gives s as a JSON string.
func QuoteBytes(s string) json.RawMessage {
	if utf8.ValidString(s) {
		return JSON(s)
	}
	var out bytes.Buffer
	out.WriteByte('"')
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			out.WriteString("\\udc" + string(hexDigits[s[0]>>4]) + string(hexDigits[s[0]&15]))
		} else {
			q := JSON(s[:n])
			out.Write(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	out.WriteByte('"')
	return out.Bytes()
}

// unquoteBytes reverses QuoteBytes, in one pass: raw is cut at the escapes of bytes.
func unquoteBytes(raw []byte) (string, error) {
	var out strings.Builder
	done := 1 // behind the quotation mark
	cut := func(end int) error {
		part, err := unquote(slices.Concat([]byte{'"'}, raw[done:end], []byte{'"'}))
		out.WriteString(part)
		return err
	}
	for at := 1; at < len(raw)-1; {
		if raw[at] != '\\' {
			at++
			continue
		}
		if raw[at+1] != 'u' {
			at += 2
			continue
		}
		escape := strings.ToLower(string(raw[at:min(at+6, len(raw))]))
		if isHighSurrogate(escape) {
			// With a second half behind it is one character.
			at += 6
			if bytes.HasPrefix(raw[min(at, len(raw)):], []byte(`\u`)) {
				at += 6
			}
			continue
		}
		if value, isByte := escapedByte(escape); isByte {
			if err := cut(at); err != nil {
				return "", err
			}
			out.WriteByte(value)
			done = at + 6
		}
		at += 6
	}
	err := cut(len(raw) - 1)
	return out.String(), err
}

func unquote(raw []byte) (s string, err error) {
	err = json.Unmarshal(raw, &s)
	return s, err
}

// escapedByte is the byte that \udc80 … \udcff stands for.
func escapedByte(escape string) (byte, bool) {
	if len(escape) != 6 || !strings.HasPrefix(escape, `\udc`) {
		return 0, false
	}
	high, low := strings.IndexByte(hexDigits, escape[4]), strings.IndexByte(hexDigits, escape[5])
	return byte(high<<4 | low), high >= 8 && low >= 0
}

// isHighSurrogate tells whether an escape is the first half of a pair.
func isHighSurrogate(escape string) bool {
	return len(escape) == 6 && strings.HasPrefix(escape, `\ud`) && strings.IndexByte("89ab", escape[3]) >= 0
}

// specBytes are the fields of a Spec that stand for bytes.
type specBytes struct {
	Argv    []json.RawMessage `json:"argv"`
	Env     []json.RawMessage `json:"env"`
	Workdir json.RawMessage   `json:"workdir"`
	User    json.RawMessage   `json:"user"`
	Path    json.RawMessage   `json:"path"`
}

// keepBytes gives s the bytes that json.Unmarshal of payload has replaced.
func (s *Spec) keepBytes(payload []byte) error {
	if !bytes.Contains(bytes.ToLower(payload), []byte(`\udc`)) {
		return nil
	}
	var raw specBytes
	if err := json.Unmarshal(payload, &raw); err != nil {
		return err
	}
	var err error
	set := func(to *string, from json.RawMessage) {
		if err == nil && len(from) > 0 && from[0] == '"' {
			*to, err = unquoteBytes(from)
		}
	}
	for i := range s.Argv {
		set(&s.Argv[i], raw.Argv[i])
	}
	for i := range s.Env {
		set(&s.Env[i], raw.Env[i])
	}
	set(&s.Workdir, raw.Workdir)
	set(&s.User, raw.User)
	set(&s.Path, raw.Path)
	return err
}

// MarshalJSON writes the fields that stand for bytes as such.
func (s *Spec) MarshalJSON() ([]byte, error) {
	type plain Spec
	quoted := func(list []string) []json.RawMessage {
		out := make([]json.RawMessage, len(list))
		for i, e := range list {
			out[i] = QuoteBytes(e)
		}
		return out
	}
	return JSON(struct {
		*plain
		Argv    []json.RawMessage `json:"argv"`
		Env     []json.RawMessage `json:"env"`
		Workdir json.RawMessage   `json:"workdir"`
		User    json.RawMessage   `json:"user"`
		Path    json.RawMessage   `json:"path"`
	}{(*plain)(s), quoted(s.Argv), quoted(s.Env), QuoteBytes(s.Workdir), QuoteBytes(s.User), QuoteBytes(s.Path)}), nil
}
