package files

import (
	"bytes"
	"encoding/base64"
	"os"
	"strconv"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

// Bounds of the kernel: names of one file's attributes together, and one value.
const (
	maxAttributeNames = 64 << 10
	maxAttribute      = 64 << 10
)

// attributeNames gives the names of path's extended attributes that begin with prefix.
func attributeNames(path, prefix string) []string {
	buf := make([]byte, maxAttributeNames)
	n, err := syscall.Listxattr(path, buf)
	if err != nil {
		return nil // a file system without any
	}
	var names []string
	for _, name := range strings.Split(string(buf[:n]), "\x00") {
		if name != "" && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// userAttributes is what names begin with of attributes that any user may give a file.
const userAttributes = "user."

// readAttributes gives path's extended attributes whose names begin with prefix.
func readAttributes(path, prefix string) map[string][]byte {
	var values map[string][]byte
	buf := make([]byte, maxAttribute)
	for _, name := range attributeNames(path, prefix) {
		n, err := syscall.Getxattr(path, name, buf)
		if err != nil {
			continue // removed meanwhile, or not this user's to read
		}
		if values == nil {
			values = map[string][]byte{}
		}
		values[name] = bytes.Clone(buf[:n])
	}
	return values
}

// attributesOf gives the values of path's extended attributes that begin with prefix.
func attributesOf(path, prefix string) map[string]string {
	var values map[string]string
	for name, value := range readAttributes(path, prefix) {
		if values == nil {
			values = map[string]string{}
		}
		values[name[len(prefix):]] = base64.StdEncoding.EncodeToString(value)
	}
	return values
}

// setAttributes makes the file's extended attributes below the prefix exactly those.
func setAttributes(f *os.File, a *wire.Attributes) error {
	if a == nil || a.Prefix == "" {
		return nil
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	for _, name := range attributeNames(path, a.Prefix) {
		if _, keep := a.Values[name[len(a.Prefix):]]; keep {
			continue
		}
		if err := syscall.Removexattr(path, name); err != nil {
			return &os.PathError{Op: "removexattr", Path: name, Err: err}
		}
	}
	for name, text := range a.Values {
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return wire.Errorf(wire.CodeRequest, "The value of the attribute %.256q is not base64.", name)
		}
		if err := syscall.Setxattr(path, a.Prefix+name, value, 0); err != nil {
			return &os.PathError{Op: "setxattr", Path: name, Err: err}
		}
	}
	return nil
}
