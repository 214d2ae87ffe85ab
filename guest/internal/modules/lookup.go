package modules

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// ruleDirs hold what the image's owner says of modules, modprobe.d(5); a file
// hides one of the same name in a later directory.
var ruleDirs = []string{"/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"}

// softDeps are modules to be loaded before and after another where they are there.
type softDeps struct{ pre, post []string }

// alias stands for a module.
type alias struct{ pattern, name string }

// rules are the parts of modprobe.d(5) that the helper honours.
type rules struct {
	aliases   []alias
	blacklist map[string]bool // not by aliases
	refused   map[string]bool // never: `install NAME COMMAND`, which the helper does not run
	options   map[string][]string
	soft      map[string]softDeps
}

func (r *rules) match(wanted string) []string {
	var names []string
	for _, a := range r.aliases {
		if matches(a.pattern, wanted) {
			names = append(names, a.name)
		}
	}
	return names
}

// readRules reads the directories' *.conf files and the kernel's command line
// (`module.option=value`, `modprobe.blacklist=a,b`).
func readRules(dirs []string, cmdline string) (rules, error) {
	r := rules{blacklist: map[string]bool{}, refused: map[string]bool{}, options: map[string][]string{}, soft: map[string]softDeps{}}
	files := map[string]string{}
	for _, dir := range dirs {
		found, err := filepath.Glob(dir + "/*.conf")
		if err != nil {
			return r, err
		}
		for _, path := range found {
			if _, hidden := files[filepath.Base(path)]; !hidden {
				files[filepath.Base(path)] = path
			}
		}
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := eachLine(files[name], r.line); err != nil {
			return r, err
		}
	}
	for _, word := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		module, option, ok := strings.Cut(key, ".")
		switch {
		case !ok || module == "vmsan":
		case key == "modprobe.blacklist":
			for _, name := range strings.Split(value, ",") {
				r.blacklist[normalize(name)] = true
			}
		default:
			module = normalize(module)
			r.options[module] = append(r.options[module], strings.TrimPrefix(word, key[:len(key)-len(option)]))
		}
	}
	return r, nil
}

// line takes one line of a modprobe.d file; what it does not know it leaves out, as kmod does.
func (r *rules) line(fields []string) {
	if len(fields) < 2 {
		return
	}
	name := normalize(fields[1])
	switch rest := fields[2:]; fields[0] {
	case "alias":
		if len(rest) > 0 {
			r.aliases = append(r.aliases, alias{pattern: name, name: normalize(rest[0])})
		}
	case "blacklist":
		r.blacklist[name] = true
	case "install":
		r.refused[name] = true
	case "options":
		r.options[name] = append(r.options[name], rest...)
	case "softdep":
		r.soft[name] = parseSoft(rest)
	}
}

func parseSoft(words []string) softDeps {
	var s softDeps
	into := &s.pre
	for _, word := range words {
		switch word {
		case "pre:":
			into = &s.pre
		case "post:":
			into = &s.post
		default:
			*into = append(*into, word)
		}
	}
	return s
}

// readSoft reads modules.softdep; what the image's owner says comes first.
func readSoft(path string, own map[string]softDeps) (map[string]softDeps, error) {
	all := map[string]softDeps{}
	err := eachLine(path, func(fields []string) {
		if len(fields) > 2 && fields[0] == "softdep" {
			name, more := normalize(fields[1]), parseSoft(fields[2:])
			before := all[name]
			all[name] = softDeps{append(before.pre, more.pre...), append(before.post, more.post...)}
		}
	})
	for name, soft := range own {
		all[name] = soft
	}
	return all, err
}

// readDependencies reads modules.dep: `PATH: NEEDED PATHS…`.
func readDependencies(path string) (map[string][]string, error) {
	paths := map[string][]string{}
	err := eachLine(path, func(fields []string) {
		file, ok := strings.CutSuffix(fields[0], ":")
		if !ok {
			return
		}
		paths[nameOf(file)] = append([]string{file}, fields[1:]...)
	})
	return paths, err
}

// matchAliases finds the modules whose own aliases fit.
func matchAliases(path, wanted string) ([]string, error) {
	var names []string
	err := eachLine(path, func(fields []string) {
		if len(fields) == 3 && fields[0] == "alias" && matches(normalize(fields[1]), wanted) {
			names = append(names, normalize(fields[2]))
		}
	})
	return names, err
}

// eachLine gives the words of each line that has any; no file has no lines.
func eachLine(path string, take func(fields []string)) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 && fields[0][0] != '#' {
			take(fields)
		}
	}
	return lines.Err()
}

// normalize writes a name or pattern with underscores; brackets stay as they are.
func normalize(name string) string {
	b := []byte(name)
	bracket := false
	for i, c := range b {
		switch {
		case c == '[':
			bracket = true
		case c == ']':
			bracket = false
		case c == '-' && !bracket:
			b[i] = '_'
		}
	}
	return string(b)
}

// matches compares a name with a pattern of fnmatch(3): * ? [a-z] [!a].
func matches(pattern, name string) bool {
	// After a star: where to begin again, one byte further on.
	star, again := -1, 0
	p, n := 0, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			star, again = p, n
			p++
			continue
		}
		if width := matchOne(pattern[p:], name[n]); width > 0 {
			p += width
			n++
			continue
		}
		if star < 0 {
			return false
		}
		again++
		p, n = star+1, again
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne compares a byte with the beginning of a pattern and gives the number of
// the pattern's bytes that stand for it, 0 when it does not fit.
func matchOne(pattern string, c byte) int {
	if pattern == "" {
		return 0
	}
	end := strings.IndexByte(pattern, ']')
	if pattern[0] != '[' || end < 2 {
		if pattern[0] == '?' || pattern[0] == c {
			return 1
		}
		return 0
	}
	set := pattern[1:end]
	negative := set[0] == '!' || set[0] == '^'
	if negative {
		set = set[1:]
	}
	inside := false
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			inside = inside || (set[i] <= c && c <= set[i+2])
			i += 2
		} else {
			inside = inside || set[i] == c
		}
	}
	if inside == negative {
		return 0
	}
	return end + 1
}
