package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"

	"vmsan/guest/internal/wire"
)

// ParsePull reads the words behind `vmsan image pull`: an image of a registry and nothing else. False as with
// [ParseExec], and on a terminal, where the other client shows bars.
func ParsePull(words []string) (image string, ok bool) {
	if len(words) != 1 || !isRegistryImage(words[0]) || isTerminal(2) {
		return "", false
	}
	return words[0], true
}

// Pull makes an image available, says on standard error what comes, and prints its digest. False: the other client is
// to do it; what has come whole is there already.
func Pull(image string, d *Daemon) (status int, done bool) {
	conn, err := d.Dial()
	if err != nil {
		return 0, false
	}
	defer conn.Close()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, interrupts...)
	defer signal.Stop(interrupted)
	// The daemon lets go of what nobody waits for any more.
	go exitAtNext(interrupted)
	body := map[string]any{"image": image, "pull": "always", "registry": registryAccess(os.Getenv)}
	if err := conn.stream("POST", "/v1/images/pull", wire.JSON(body)); err != nil {
		return 0, false
	}
	said := itemLines{}
	result, err := conn.lines(func(l line) {
		if l.Event == "progress" {
			said.show(l.Progress)
		}
	})
	var pulled struct{ Digest string }
	var info *wire.ErrorInfo
	switch {
	case errors.As(err, &info):
		return report(info), true
	case err != nil, json.Unmarshal(result, &pulled) != nil, pulled.Digest == "":
		return 0, false
	}
	_, err = os.Stdout.WriteString(oneLine(pulled.Digest) + "\n")
	return statusAfterLoss(0, err, nil), true
}

// itemLines shows progress in a log: a line when a phase or an item begins, one when an item ends. The other client's are
// in src/cli/progress.ts.
type itemLines map[string]bool

func (said itemLines) show(p progress) {
	if p.Item == "" || p.Message != "" || p.Total == nil {
		said.say(p.words())
		return
	}
	name, size := oneLine(p.Phase+" "+p.Item), strconv.FormatInt(*p.Total, 10)
	if p.Unit == "bytes" {
		size = formatBytes(*p.Total)
	}
	said.say(name + " " + size)
	if p.Done != nil && *p.Done == *p.Total {
		said.say(name + " done")
	}
}

func (said itemLines) say(text string) {
	if said[text] {
		return
	}
	said[text] = true
	// There is nowhere to say that standard error cannot be written.
	_, _ = os.Stderr.WriteString(text + "\n")
}

// formatBytes writes a number of bytes as formatBytes() of src/util/units.ts does.
func formatBytes(bytes int64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), -1
	for value >= 1024 && unit < 3 {
		value /= 1024
		unit++
	}
	// Halves go up, as with toFixed() there.
	decimals, whole := 0, math.Round(value)
	if value < 10 {
		decimals, whole = 1, math.Round(value*10)/10
	}
	return strconv.FormatFloat(whole, 'f', decimals, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[unit]
}
