package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"vmsan/guest/internal/wire"
)

// oneLine is text for one line: line breaks and whatever else moves a terminal's cursor, or turns the direction of
// writing, are shown as escapes, and bytes that are no text too. A guest's words cannot forge a line by them.
func oneLine(text string) string {
	var out strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, text[0])
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case r < 0x20 || r >= 0x7f && r <= 0x9f || unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 || r == 0x2029:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteString(text[:n])
		}
		text = text[n:]
	}
	return out.String()
}

// note writes sentences for people, a line each.
func note(lines ...string) {
	for _, line := range lines {
		// There is nowhere to say that standard error cannot be written.
		_, _ = os.Stderr.WriteString(oneLine(line) + "\n")
	}
}

// report says why a command that had been started failed, as the other client does, and gives the status.
func report(e *wire.ErrorInfo) int {
	lines := []string{"error: " + e.Message + " [" + e.Code + "]"}
	if e.Why != "" {
		lines = append(lines, "  why: "+e.Why)
	}
	if e.Fix != "" {
		lines = append(lines, "  fix: "+e.Fix)
	}
	note(lines...)
	if strings.HasPrefix(e.Code, "ERR_VALIDATION_") {
		return 2
	}
	return 1
}

// reportError is report of any error.
func reportError(err error) int {
	var info *wire.ErrorInfo
	if !errors.As(err, &info) {
		info = &wire.ErrorInfo{Code: "ERR_INTERNAL", Message: "vmsan failed", Why: err.Error()}
	}
	return report(info)
}

// lost is the error of a stream whose connection did not come back.
func lost(id string, cause error) *wire.ErrorInfo {
	return &wire.ErrorInfo{
		Code:    "ERR_AGENT_UNREACHABLE",
		Message: "Lost the connection to " + id + " in the guest",
		Why:     cause.Error(),
		Fix:     "What runs in the guest goes on; attach to it by its ID once the VM answers again.",
	}
}

// endError ends a session: trying again cannot help.
type endError struct{ *wire.ErrorInfo }

// Unwrap gives what is reported.
func (e *endError) Unwrap() error { return e.ErrorInfo }

// nonsense is the error of an agent that breaks the protocol.
func nonsense(why string) error {
	return &endError{&wire.ErrorInfo{
		Code:    "ERR_AGENT_PROTOCOL",
		Message: "The guest's agent sent something that makes no sense",
		Why:     why,
		Fix:     "Restart the VM, so that its agent is of this vmsan's version; report it if it comes back.",
	}}
}

// failure is the error of a FAIL frame.
func failure(payload []byte, action string) error {
	info := &wire.ErrorInfo{}
	// What is not JSON is reported by the action alone.
	_ = json.Unmarshal(payload, info)
	return &endError{checked(info, action)}
}

var errorCode = regexp.MustCompile(`^ERR_[A-Z0-9_]{1,60}$`)

// checked is an error that the agent reported, bounded: the guest is not trusted.
func checked(given *wire.ErrorInfo, action string) *wire.ErrorInfo {
	e := &wire.ErrorInfo{Code: given.Code, Message: bounded(given.Message), Why: bounded(given.Why), Fix: bounded(given.Fix)}
	if !errorCode.MatchString(e.Code) {
		e.Code = "ERR_AGENT_FAILED"
	}
	if e.Message == "" {
		e.Message = action
	}
	if e.Fix == "" {
		e.Fix = "See the guest's console: vmsan logs VM."
	}
	return e
}

func bounded(text string) string { return text[:min(len(text), 4096)] }
