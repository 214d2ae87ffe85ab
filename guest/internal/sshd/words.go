package sshd

import (
	"errors"
	"fmt"
	"strings"
)

// splitWords splits a command line as a shell would that knows quotes and nothing else: there is none
// in the guest. What only a shell could do is refused, never passed on as text.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun := false
	quote := byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == '\'':
			if c == '\'' {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '\\':
			if i++; i == len(line) {
				return nil, errors.New("the command ends in a backslash")
			}
			if quote == '"' && !strings.ContainsRune("\"\\$`", rune(line[i])) {
				word.WriteByte('\\')
			}
			word.WriteByte(line[i])
			begun = true
		case quote == '"' && c == '"':
			quote = 0
		case c == '$' || c == '`' || quote == 0 && strings.IndexByte("|&;<>()*?[{~#\n", c) >= 0:
			return nil, fmt.Errorf("there is no shell in the guest that could make something of %q; the words of a command can be run", c)
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c has no end", quote)
	}
	if begun {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("the command is empty")
	}
	return words, nil
}
