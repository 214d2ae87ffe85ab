package files

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// paxAttribute is what names of extended attributes begin with in pax headers.
const paxAttribute = "SCHILY.xattr."

// tarEntry is what a header says.
type tarEntry struct {
	typ          byte
	name, link   string
	mode         uint32
	uid, gid     uint32
	size         int64 // as the reader will see it
	sec, nsec    int64
	major, minor uint32
	sparse       bool
	extents      []extent
	attributes   map[string][]byte
}

// tarWriter writes POSIX pax. The standard library's cannot write sparse files.
type tarWriter struct {
	w       io.Writer
	written int64
}

// Write implements io.Writer for file contents.
func (t *tarWriter) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.written += int64(n)
	return n, err
}

func (t *tarWriter) zeros(n int64) error {
	for n > 0 {
		k, err := t.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// pad fills the last block.
func (t *tarWriter) pad() error {
	if rest := t.written % 512; rest != 0 {
		return t.zeros(512 - rest)
	}
	return nil
}

// end writes the archive's end.
func (t *tarWriter) end() error { return t.zeros(1024) }

// header writes an entry's headers, and the map of a sparse file.
func (t *tarWriter) header(h *tarEntry) error {
	var records []string
	add := func(key, value string) { records = append(records, paxRecord(key, value)) }
	name, size := h.name, h.size
	var sparse []byte
	if h.sparse {
		sparse = sparseMap(h.extents)
		size = int64(len(sparse))
		for _, e := range h.extents {
			size += e.length
		}
		add("GNU.sparse.major", "1")
		add("GNU.sparse.minor", "0")
		add("GNU.sparse.name", h.name)
		add("GNU.sparse.realsize", strconv.FormatInt(h.size, 10))
		dir, base := "", h.name
		if i := strings.LastIndexByte(h.name, '/'); i >= 0 {
			dir, base = h.name[:i+1], h.name[i+1:]
		}
		name = dir + "GNUSparseFile.0/" + base
	}
	if h.nsec != 0 || h.sec < 0 || h.sec >= 1<<33 {
		add("mtime", paxTime(h.sec, h.nsec))
	}
	if !plain(name) {
		add("path", name)
	}
	if h.link != "" && !plain(h.link) {
		add("linkpath", h.link)
	}
	if size >= 1<<33 {
		add("size", strconv.FormatInt(size, 10))
	}
	if h.uid >= 1<<21 {
		add("uid", strconv.Itoa(int(h.uid)))
	}
	if h.gid >= 1<<21 {
		add("gid", strconv.Itoa(int(h.gid)))
	}
	for _, key := range slices.Sorted(maps.Keys(h.attributes)) {
		add(paxAttribute+key, string(h.attributes[key]))
	}
	if len(records) > 0 {
		if !utf8.ValidString(h.name) || !utf8.ValidString(h.link) {
			records = append([]string{paxRecord("hdrcharset", "BINARY")}, records...)
		}
		body := strings.Join(records, "")
		x := &tarEntry{typ: 'x', mode: 0o644, sec: max(h.sec, 0)}
		if _, err := t.Write(ustar(x, "PaxHeaders/"+short(name, 80), "", int64(len(body)))); err != nil {
			return err
		}
		if _, err := io.WriteString(t, body); err != nil {
			return err
		}
		if err := t.pad(); err != nil {
			return err
		}
	}
	if h.typ != '0' {
		size = 0
	}
	if _, err := t.Write(ustar(h, short(name, 100), short(h.link, 100), size)); err != nil {
		return err
	}
	if sparse != nil {
		if _, err := t.Write(sparse); err != nil {
			return err
		}
	}
	return nil
}

// plain tells whether a name fits the old header as it is.
func plain(s string) bool {
	if len(s) > 100 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// short is what readers without pax get to see.
func short(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		if c >= 0x80 {
			b[i] = '_'
		}
	}
	return string(b)
}

// paxTime gives seconds with a fraction; below zero the fraction counts away from zero.
func paxTime(sec, nsec int64) string {
	sign := ""
	if sec < 0 {
		sign = "-"
		sec = -sec
		if nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	if nsec == 0 {
		return sign + strconv.FormatInt(sec, 10)
	}
	return sign + strconv.FormatInt(sec, 10) + "." + strings.TrimRight(fmt.Sprintf("%09d", nsec), "0")
}

// paxRecord gives "LENGTH key=value\n", where the length counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for len(strconv.Itoa(n))+len(rest) != n {
		n = len(strconv.Itoa(n)) + len(rest)
	}
	return strconv.Itoa(n) + rest
}

// ustar gives one 512-byte header. Numbers that do not fit are in the pax header and 0 here.
func ustar(h *tarEntry, name, link string, size int64) []byte {
	b := make([]byte, 512)
	octal := func(at, width int, v int64) {
		if v < 0 || v >= 1<<(3*(width-1)) {
			v = 0
		}
		for i := at + width - 2; i >= at; i-- {
			b[i] = '0' + byte(v&7)
			v >>= 3
		}
	}
	copy(b[0:100], name)
	octal(100, 8, int64(h.mode))
	octal(108, 8, int64(h.uid))
	octal(116, 8, int64(h.gid))
	octal(124, 12, size)
	octal(136, 12, h.sec)
	b[156] = h.typ
	copy(b[157:257], link)
	copy(b[257:], "ustar\x0000")
	if h.typ == '3' || h.typ == '4' {
		octal(329, 8, int64(h.major))
		octal(337, 8, int64(h.minor))
	}
	copy(b[148:156], "        ")
	sum := int64(0)
	for _, c := range b {
		sum += int64(c)
	}
	octal(148, 7, sum)
	b[154] = 0
	return b
}
