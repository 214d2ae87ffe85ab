package client

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"

	"vmsan/guest/internal/wire"
)

// plain is text without control characters: what a guest says must not drive a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\t' && r != '\n' || r >= 0x7f && r <= 0x9f {
			return -1
		}
		return r
	}, text)
}

// note writes a sentence for people.
func note(text string) {
	// There is nowhere to say that standard error cannot be written.
	_, _ = os.Stderr.WriteString(plain(text) + "\n")
}

// report says why a command that had been started failed, as the other client does, and gives the status.
func report(e *wire.ErrorInfo) int {
	text := "error: " + e.Message + " [" + e.Code + "]"
	if e.Why != "" {
		text += "\n  why: " + e.Why
	}
	if e.Fix != "" {
		text += "\n  fix: " + e.Fix
	}
	note(text)
	if strings.HasPrefix(e.Code, "ERR_VALIDATION_") {
		return 2
	}
	return 1
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
