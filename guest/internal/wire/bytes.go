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

// Text is a string that stands for bytes, as JSON has it.
type Text string

// UnmarshalJSON keeps the bytes that encoding/json would replace.
func (t *Text) UnmarshalJSON(raw []byte) (err error) {
	var s string
	if !hasEscapedBytes(raw) {
		s, err = unquote(raw)
	} else {
		s, err = unquoteBytes(raw)
	}
	*t = Text(s)
	return err
}

// MarshalJSON writes bytes that are no text as escapes.
func (t Text) MarshalJSON() ([]byte, error) { return QuoteBytes(string(t)), nil }

// Texts is a list of strings that stand for bytes.
type Texts []string

// UnmarshalJSON keeps the bytes that encoding/json would replace.
func (t *Texts) UnmarshalJSON(raw []byte) error {
	if !hasEscapedBytes(raw) {
		return json.Unmarshal(raw, (*[]string)(t))
	}
	var list []Text
	err := json.Unmarshal(raw, &list)
	*t = make(Texts, len(list))
	for i, text := range list {
		(*t)[i] = string(text)
	}
	return err
}

// MarshalJSON writes bytes that are no text as escapes.
func (t Texts) MarshalJSON() ([]byte, error) {
	if t == nil {
		return []byte("null"), nil
	}
	list := make([]json.RawMessage, len(t))
	for i, s := range t {
		list[i] = QuoteBytes(s)
	}
	return JSON(list), nil
}

// hasEscapedBytes tells whether JSON may hold escapes of bytes. Most holds none.
func hasEscapedBytes(raw []byte) bool {
	return bytes.Contains(raw, []byte(`\u`)) && bytes.Contains(bytes.ToLower(raw), []byte(`\udc`))
}
