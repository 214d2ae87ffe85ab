package client

import (
	"cmp"
	"fmt"
	"time"
)

// timeLimitPassed is what to tell those whose command ended because the VM's time was up; empty if it was not.
func (d *Daemon) timeLimitPassed(before *VM) string {
	if before.TimeoutMs == 0 || before.TimeoutAt.IsZero() || time.Now().Before(before.TimeoutAt) {
		return ""
	}
	conn, err := d.Dial()
	if err != nil {
		return ""
	}
	defer conn.Close()
	// It was removed meanwhile, or the daemon cannot be asked: then there is nothing to add.
	if now, err := conn.View(before.ID); err != nil || now.StopReason != "time-limit" {
		return ""
	}
	name := cmp.Or(before.Name, before.ID)
	return fmt.Sprintf("vmsan: %s was stopped: its time limit of %s has passed (create --timeout)\n"+
		"  fix: start it again (vmsan start %s), or create it with a longer --timeout or none; exec -i and -t renew the limit",
		name, duration(before.TimeoutMs), name)
}

// duration is milliseconds as people write them, to the second: `2h30m`, `12s`.
func duration(ms int64) string {
	left := max(1, (ms+500)/1000)
	text := ""
	for _, unit := range []struct {
		name    string
		seconds int64
	}{{"h", 3600}, {"m", 60}, {"s", 1}} {
		if count := left / unit.seconds; count > 0 {
			text += fmt.Sprintf("%d%s", count, unit.name)
		}
		left %= unit.seconds
	}
	return text
}
