// Command firecracker stands in for Firecracker in tests: its command line, its API with every
// rule and order, its vsock socket. What the "guest" is, see guest.go and README.md.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Exit codes of Firecracker.
const (
	exitError     = 1
	exitCrash     = 148 // as after a system call that the filters forbid
	exitBadConfig = 152
	exitArguments = 153
)

// Faults are what a test wants to go wrong: JSON behind the mark at the end of the executable,
// which is the only thing that reaches a jail.
type Faults struct {
	Version string `json:"version"`
	// CrashAt, HangAt and RefuseAt are requests such as "PUT /vsock"; "start" is before the API.
	CrashAt  string `json:"crashAt"`
	HangAt   string `json:"hangAt"`
	RefuseAt string `json:"refuseAt"`
	// BootMs is how long the guest takes until its driver is up; default 150.
	BootMs int `json:"bootMs"`
}

const faultMark = "\nSTANDIN-FAULTS:"

func readFaults() Faults {
	faults := Faults{Version: "1.16.1", BootMs: 150}
	// In two parts, or the mark would be found in the program itself.
	mark := "\nSTANDIN-" + "FAULTS:"
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		// In a jail there is no /proc: the name is the one that was executed.
		data, err = os.ReadFile(os.Args[0])
	}
	if err != nil {
		return faults
	}
	if i := strings.LastIndex(string(data), mark); i >= 0 {
		_ = json.Unmarshal(data[i+len(mark):], &faults)
	}
	return faults
}

type options struct {
	api, id, log string
	seccomp      bool
	maxPayload   int
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}

var instanceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func parse(args []string, faults Faults) options {
	o := options{api: "/run/firecracker.socket", id: "anonymous-instance", seccomp: true, maxPayload: 51200}
	for i := 0; i < len(args); i++ {
		value := func() string {
			if i++; i >= len(args) {
				fail(exitArguments, "Arguments parsing error: The argument '%s' requires a value, but none was supplied.", args[i-1])
			}
			return args[i]
		}
		switch args[i] {
		case "--version":
			fmt.Printf("Firecracker v%s\n\n", faults.Version)
			fmt.Println("2026-01-01T00:00:00.000000000 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0")
			os.Exit(0)
		case "--api-sock":
			o.api = value()
		case "--id":
			o.id = value()
		case "--log-path":
			o.log = value()
		case "--no-seccomp":
			o.seccomp = false
		case "--level", "--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us", "--metrics-path":
			value()
		case "--boot-timer", "--enable-pci", "--show-level", "--show-log-origin":
		default:
			fail(exitArguments, "Arguments parsing error: Found argument '%s' which wasn't expected, or isn't valid in this context.", args[i])
		}
	}
	if !instanceID.MatchString(o.id) {
		fail(exitArguments, "Invalid instance ID: %s", o.id)
	}
	return o
}

// installSeccomp puts a filter on all threads that allows everything: what /proc shows is what
// the test is about.
func installSeccomp() error {
	type filter struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	allow := []filter{{code: 0x06, k: 0x7fff0000}}
	program := struct {
		length uint16
		filter *filter
	}{1, &allow[0]}
	const setNoNewPrivs, setModeFilter, flagTsync = 38, 1, 1
	// All threads at once, so that the filter may be put on all of them.
	if _, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0); errno != 0 {
		return errno
	}
	const seccomp = 317 // of x86_64; aarch64 has 277
	number := uintptr(seccomp)
	if isArm64 {
		number = 277
	}
	_, _, errno := syscall.RawSyscall(number, setModeFilter, flagTsync, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

func main() {
	if len(os.Args) > 3 && os.Args[1] == guestRole {
		becomeGuest(os.Args[2:])
	}
	faults := readFaults()
	o := parse(os.Args[1:], faults)
	if o.log != "" {
		file, err := openLog(o.log)
		if err != nil {
			fail(exitBadConfig, "Could not initialize logger: %s", osError(err))
		}
		fmt.Fprintf(file, "stand-in %s running\n", faults.Version)
	}
	if o.seccomp {
		if err := installSeccomp(); err != nil {
			fail(exitError, "Error installing seccomp filters: %v", err)
		}
	}
	if faults.CrashAt == "start" {
		os.Exit(exitCrash)
	}
	if faults.HangAt == "start" {
		// Not select{}: the runtime takes a program without other work for deadlocked.
		time.Sleep(time.Hour)
	}
	listener, err := net.Listen("unix", o.api)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			fail(exitError, "Failed to open the API socket at: %s. Check that it is not already used.", o.api)
		}
		fail(exitError, "RunWithApiError error: Failed to bind and run the HTTP server: %v", err)
	}
	// A killed Firecracker leaves its sockets behind, and so does one that ends by itself.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	m := newMachine(o.id, faults, filepath.Dir(o.api))
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go m.serve(conn, o.maxPayload)
	}
}
