package proc

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

// DefaultPath is PATH where nothing else is given.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// TrustDir has what leads programs to the authority of the VM's secrets.
const TrustDir = "/run/vmsan"

// javaOptions are what every Java reads; images and users have options of their own in it.
const javaOptions = "JAVA_TOOL_OPTIONS"

// Environment joins lists of NAME=VALUE: later lists win, order is kept, names are unique. A later
// JAVA_TOOL_OPTIONS keeps what an earlier one says of the authorities below TrustDir.
func Environment(lists ...[]string) []string {
	at := map[string]int{}
	var out []string
	for _, l := range lists {
		for _, e := range l {
			name, _, _ := strings.Cut(e, "=")
			if i, ok := at[name]; ok {
				if name == javaOptions {
					e = name + "=" + withTrust(out[i][len(name)+1:], e[len(name)+1:])
				}
				out[i] = e
				continue
			}
			at[name] = len(out)
			out = append(out, e)
		}
	}
	return out
}

// withTrust gives Java's options with those of old that name a store of ours; what says nothing, or names
// a store itself, stays as it is.
func withTrust(old, options string) string {
	const store = "-Djavax.net.ssl.trustStore"
	if strings.TrimSpace(options) == "" || strings.Contains(options, store+"=") || !strings.Contains(old, store+"="+TrustDir+"/") {
		return options
	}
	var words []string
	for _, word := range strings.Fields(old) {
		if strings.HasPrefix(word, store) {
			words = append(words, word)
		}
	}
	return strings.Join(append(words, options), " ")
}

// Getenv gives the value of name in env.
func Getenv(env []string, name string) string {
	for _, e := range env {
		if n, v, _ := strings.Cut(e, "="); n == name {
			return v
		}
	}
	return ""
}

// Lookup finds the program that argv[0] names: as it is when it has a slash
// (relative to workdir), else in path. It follows what execvp does: the first
// executable file wins; one that is there but not executable is remembered.
func Lookup(name, path, workdir string) (string, error) {
	if name == "" {
		return "", wire.Errorf(wire.CodeNotFound, "The command's name is empty.").
			Remedy("Say what to run; run --entrypoint leaves out an image's own.")
	}
	if strings.Contains(name, "/") {
		full := name
		if !filepath.IsAbs(full) {
			full = workdir + "/" + full
		}
		return name, executable(name, full)
	}
	var denied error
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		candidate := dir + "/" + name
		full := candidate
		if !filepath.IsAbs(full) {
			full = workdir + "/" + full
		}
		err := executable(name, full)
		if err == nil {
			return candidate, nil
		}
		if e, ok := err.(*wire.ErrorInfo); ok && e.Code == wire.CodeNotExecutable && denied == nil && !isDir(full) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	remedy := "Install it in the image, or give its full path."
	if strings.ContainsAny(name, " \t\n") {
		remedy = "Give its words one by one; what a shell is to read goes to one: sh -c 'LINE'."
	}
	return "", wire.Errorf(wire.CodeNotFound, "The command %.256q was not found in the guest.", name).
		Because("no directory of PATH (" + clip(path, 512) + ") has it").
		Remedy(remedy)
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func executable(name, full string) error {
	fi, err := os.Stat(full)
	switch {
	case err != nil && os.IsPermission(err):
		return notExecutable(name, err)
	case err != nil:
		return wire.Errorf(wire.CodeNotFound, "The command %.256q was not found in the guest.", name).Because(err)
	case fi.IsDir():
		return notExecutable(name, syscall.EISDIR)
	case fi.Mode()&0o111 == 0:
		return notExecutable(name, syscall.EACCES)
	}
	return nil
}

func notExecutable(name string, why any) error {
	return wire.Errorf(wire.CodeNotExecutable, "The command %.256q cannot be executed.", name).Because(why).
		Remedy("Check its mode, its owner and the user that runs it.")
}

// LoginShell gives the shell for u and its arguments, argv[0] with the dash of a login shell.
func LoginShell(u *User) (file string, argv []string, err error) {
	base := filepath.Base(u.Shell)
	if u.Shell != "" && base != "nologin" && base != "false" && executable(base, u.Shell) == nil {
		return u.Shell, []string{"-" + base}, nil
	}
	for _, sh := range []string{"/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/ash"} {
		if executable(sh, sh) == nil {
			return sh, []string{"-" + filepath.Base(sh)}, nil
		}
	}
	for _, bb := range []string{"/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/busybox/busybox"} {
		if executable(bb, bb) == nil {
			return bb, []string{"-sh"}, nil
		}
	}
	return "", nil, wire.Errorf(wire.CodeNoShell, "The guest has no shell for user %q.", u.Name).
		Because("neither the shell in /etc/passwd nor /bin/bash, /bin/sh, /bin/ash or busybox can be executed").
		Remedy("Run a command of the image directly instead.")
}
