package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Codes of the agent's errors. They are part of the protocol.
const (
	CodeRequest        = "ERR_AGENT_REQUEST"
	CodeVersion        = "ERR_AGENT_VERSION"
	CodeNotFound       = "ERR_AGENT_NOT_FOUND"
	CodeNotExecutable  = "ERR_AGENT_NOT_EXECUTABLE"
	CodeArguments      = "ERR_AGENT_ARGUMENTS"
	CodeNoShell        = "ERR_AGENT_NO_SHELL"
	CodeUser           = "ERR_AGENT_USER"
	CodeWorkdir        = "ERR_AGENT_WORKDIR"
	CodeExec           = "ERR_AGENT_EXEC"
	CodeOffset         = "ERR_AGENT_OFFSET"
	CodeStreamNotFound = "ERR_AGENT_STREAM_NOT_FOUND"
	CodeStreamRunning  = "ERR_AGENT_STREAM_RUNNING"
	CodeStreamEnded    = "ERR_AGENT_STREAM_ENDED"
	CodeTakenOver      = "ERR_AGENT_TAKEN_OVER"
	CodeLimit          = "ERR_AGENT_LIMIT"
	CodeFile           = "ERR_AGENT_FILE"
	CodeArchive        = "ERR_AGENT_ARCHIVE"
	CodeDial           = "ERR_AGENT_DIAL"
	CodeListen         = "ERR_AGENT_LISTEN"
	CodeConfig         = "ERR_AGENT_CONFIG"
	CodeMount          = "ERR_AGENT_MOUNT"
	CodeSysctl         = "ERR_AGENT_SYSCTL"
	CodeSSH            = "ERR_AGENT_SSH"
	CodeShutdown       = "ERR_AGENT_SHUTDOWN"
	CodeInternal       = "ERR_AGENT_INTERNAL"
)

// ErrorInfo is an error as the host shows it.
type ErrorInfo struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Why     string `json:"why,omitempty"`
	Fix     string `json:"fix,omitempty"`
	// Errno is the system's error behind it; 0 when there is none.
	Errno syscall.Errno `json:"errno,omitempty"`
}

// Error gives code, message and cause in one line.
func (e *ErrorInfo) Error() string {
	if e.Why != "" {
		return e.Code + ": " + e.Message + " " + e.Why
	}
	return e.Code + ": " + e.Message
}

// Errorf makes an ErrorInfo.
func Errorf(code, format string, args ...any) *ErrorInfo {
	return &ErrorInfo{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Because adds the cause to a copy of e.
func (e *ErrorInfo) Because(cause any) *ErrorInfo {
	c := *e
	switch v := cause.(type) {
	case error:
		c.Why = reason(v)
		_ = errors.As(v, &c.Errno) // stays 0 when there is none
	default:
		c.Why = fmt.Sprint(v)
	}
	return &c
}

// Remedy adds the fix to a copy of e.
func (e *ErrorInfo) Remedy(fix string) *ErrorInfo {
	c := *e
	c.Fix = fix
	return &c
}

// reason is the shortest text that still says everything: the errno's text
// where there is one, since the message already names action and path.
func reason(err error) string {
	var errno syscall.Errno
	var path *fs.PathError
	if errors.As(err, &path) && errors.As(err, &errno) || errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// AsInfo gives err as ErrorInfo, wrapping what is not one under code.
func AsInfo(err error, code, message string) *ErrorInfo {
	var info *ErrorInfo
	if errors.As(err, &info) {
		return info
	}
	return Errorf(code, "%s", message).Because(err)
}
