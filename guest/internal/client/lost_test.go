package client

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"vmsan/guest/internal/wire"
)

// TestFatal: what does not get better by itself, and a VM that only sleeps.
func TestFatal(t *testing.T) {
	for code, want := range map[string]bool{
		"ERR_VM_NOT_RUNNING": true, "ERR_SNAPSHOT_DAMAGED": true, "ERR_MOUNT_SOURCE": true, "ERR_VOLUME_IN_USE": true,
		"ERR_AGENT_ASLEEP": false, "ERR_AGENT_UNREACHABLE": false,
	} {
		err := error(&wire.ErrorInfo{Code: code})
		if Fatal(err) != want || asleep(err) != (code == "ERR_AGENT_ASLEEP") {
			t.Errorf("%s: fatal %v, asleep %v", code, Fatal(err), asleep(err))
		}
	}
	if err := errors.New("lost"); Fatal(err) || asleep(err) {
		t.Error("an error without a code")
	}
}

func TestOneLine(t *testing.T) {
	for given, want := range map[string]string{
		"a\nerror: b\r\t": `a\nerror: b\r\t`, "\x1b[2J\u009b\u2028\u202e\x7f": `\u001b[2J\u009b\u2028\u202e\u007f`,
		"a\xff\xe4\xbdb\ufffd": `a\xff\xe4\xbdb` + "\ufffd", "déjà 你好 🙂": "déjà 你好 🙂",
	} {
		if got := oneLine(given); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestStatusAfterLoss(t *testing.T) {
	left, full := &os.PathError{Err: syscall.EPIPE}, &os.PathError{Err: syscall.ENOSPC}
	for _, c := range []struct {
		status   int
		out, err error
		want     int
	}{
		{0, nil, nil, 0}, {141, nil, nil, 141}, {0, left, nil, 141}, {3, left, nil, 3}, {141, left, nil, 141},
		{0, full, nil, 1}, {141, full, nil, 1}, {3, full, nil, 3}, {0, nil, full, 1}, {0, left, full, 1},
	} {
		if got := statusAfterLoss(c.status, c.out, c.err); got != c.want {
			t.Errorf("%d %v %v: %d, want %d", c.status, c.out, c.err, got, c.want)
		}
	}
}
