package client

import (
	"errors"
	"syscall"

	"vmsan/guest/internal/wire"
)

// readerLeft is the status of a program that SIGPIPE has ended.
const readerLeft = 141

// statusAfterLoss is the exit status of a client whose outputs could not be written, given what it would have
// been. What was lost is said, unless the status of a command that was told by SIGPIPE says it. The other
// client's rules are in src/cli/lost-output.ts.
func statusAfterLoss(status int, outputs ...error) int {
	names := [...]string{"output", "error"}
	after, onlyLeft, lost := status, true, false
	for _, err := range outputs {
		lost = lost || err != nil
		onlyLeft = onlyLeft && (err == nil || errors.Is(err, syscall.EPIPE))
	}
	switch {
	case !lost:
		return status
	case onlyLeft && status == 0:
		after = readerLeft
	case !onlyLeft && (status == 0 || status == readerLeft):
		after = 1
	}
	if status == readerLeft && after == status {
		return after
	}
	for i, err := range outputs {
		if err == nil {
			continue
		}
		why := err.Error()
		switch {
		case errors.Is(err, syscall.EPIPE):
			why = "Its reader has left; the rest is lost."
		case errors.Is(err, syscall.EBADF):
			why = "It is closed, or not open for writing."
		}
		report(&wire.ErrorInfo{
			Code: "ERR_OUTPUT", Message: "Cannot write to standard " + names[i], Why: why,
			Fix: "Make room where it goes, or send it elsewhere.",
		})
	}
	return after
}
