package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

// oPath opens a name without opening what it names (open(2)).
const oPath = 0x200000

// Bounds of the kernel: names of one file's attributes together, and one value.
const maxAttribute = 64 << 10

// attributes answers each path, which a NUL ends, with a line of JSON: the extended attributes that copies of a file
// have, too, with values in base64. The client has these read because Node.js cannot.
func attributes(in io.Reader, out io.Writer) error {
	paths := bufio.NewReader(in)
	lines := bufio.NewWriter(out)
	encoder := json.NewEncoder(lines)
	for {
		path, err := paths.ReadString(0)
		if errors.Is(err, io.EOF) {
			return lines.Flush()
		}
		if err != nil {
			return err
		}
		if err := encoder.Encode(attributesOf(path[:len(path)-1])); err != nil {
			return err
		}
		if paths.Buffered() == 0 {
			if err := lines.Flush(); err != nil {
				return err
			}
		}
	}
}

// attributesOf gives what travels with a copy of the file: attributes of users, and capabilities. A symbolic link has none.
func attributesOf(path string) map[string][]byte {
	values := map[string][]byte{}
	fd, err := syscall.Open(path, oPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return values // it has gone, which whoever reads it says
	}
	defer func() { _ = syscall.Close(fd) }() // nothing was written
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	names := make([]byte, maxAttribute)
	n, err := syscall.Listxattr(self, names)
	if err != nil {
		return values // a file system without any
	}
	value := make([]byte, maxAttribute)
	for _, name := range strings.Split(string(names[:n]), "\x00") {
		if !utf8.ValidString(name) || (!strings.HasPrefix(name, "user.") && name != "security.capability") {
			continue
		}
		n, err := syscall.Getxattr(self, name, value)
		if err != nil {
			continue // removed meanwhile, or not this user's to read
		}
		values[name] = append([]byte{}, value[:n]...)
	}
	return values
}
