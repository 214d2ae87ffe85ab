package client

import (
	"os"
	"time"
	"unicode/utf8"
)

// redraw is how often the line may change.
const redraw = 100 * time.Millisecond

// progressLine shows what the daemon does on the terminal at standard error, if there is one.
type progressLine struct {
	terminal bool
	last     time.Time
	drawn    bool
}

// show shows one step. False for what takes long and has parts: bars are the other client's.
func (l *progressLine) show(p progress) bool {
	if !l.terminal {
		return true
	}
	if p.Item != "" || p.Done != nil {
		return false
	}
	if time.Since(l.last) < redraw {
		return true
	}
	l.last, l.drawn = time.Now(), true
	text := p.words()
	// Narrower than the terminal: a line that wraps could not be erased.
	for width := max(20, columnsOf(2)-1); utf8.RuneCountInString(text) > width; {
		_, last := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-last]
	}
	l.write("\r\x1b[J" + text)
	return true
}

// clear removes the line.
func (l *progressLine) clear() {
	if l.drawn {
		l.write("\r\x1b[J")
	}
	l.drawn = false
}

// write ignores that standard error cannot be written: there is nowhere to say so.
func (l *progressLine) write(text string) { _, _ = os.Stderr.WriteString(text) }
