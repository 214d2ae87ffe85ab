package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// Version is the protocol that this agent speaks.
const Version = 1

// Bounds of a StreamSpec.
const (
	maxArgs    = 1 << 16
	maxEnv     = 1 << 16
	maxPath    = 4096
	maxLabel   = 256
	maxKeys    = 64
	maxRing    = 64 << 20
	minRing    = 4 << 10
	maxTimeout = 1 << 52
)

// U64 is an offset: a decimal string in JSON.
type U64 uint64

// MarshalJSON gives a decimal string.
func (u U64) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatUint(uint64(u), 10)), nil
}

// UnmarshalJSON takes a decimal string.
func (u *U64) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	*u = U64(n)
	return err
}

// TTY is the terminal asked for.
type TTY struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
	Term string `json:"term"`
}

// Attributes are extended attributes of a file whose names begin with Prefix: all of them that there are.
type Attributes struct {
	Prefix string `json:"prefix"`
	// Values are base64, by what follows the prefix.
	Values map[string]string `json:"values"`
}

// Spec is START's payload; fields that do not belong to its kind are ignored.
type Spec struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Argv    Texts  `json:"argv"`
	Env     Texts  `json:"env"`
	Workdir Text   `json:"workdir"`
	User    Text   `json:"user"`
	TTY     *TTY   `json:"tty"`
	Stdin   bool   `json:"stdin"`
	Detach  bool   `json:"detach"`
	// Hold: a detached stream's output waits for whoever takes it; nothing is dropped.
	Hold      bool  `json:"hold"`
	TimeoutMs int64 `json:"timeoutMs"`
	// GraceMs is a pointer since 0 (KILL at once) and absent (5000) differ.
	GraceMs   *int64 `json:"graceMs"`
	Label     string `json:"label"`
	RingBytes int    `json:"ringBytes"`
	// Client is the same for every connection of one client.
	Client string `json:"client"`

	// Files.
	Path Text `json:"path"`
	// Override: what is made is User's, but permissions do not hold.
	Override bool   `json:"override"`
	Follow   bool   `json:"follow"`
	Parents  bool   `json:"parents"`
	Owners   bool   `json:"owners"`
	Offset   int64  `json:"offset"`
	Length   *int64 `json:"length"`
	Mode     *int64 `json:"mode"`
	InPlace  bool   `json:"inPlace"`
	// NoFollow: what is read is no symlink.
	NoFollow bool `json:"noFollow"`
	// Shape of what is filled, and whether whoever runs in the guest may write there.
	Shape    string `json:"shape"`
	Writable bool   `json:"writable"`
	GID      uint32 `json:"gid"`
	// Attributes of the written file.
	Attributes *Attributes `json:"attributes"`
	// Connections.
	Network string `json:"network"`
	Address string `json:"address"`
	// AuthorizedKeys are whoever may log in on a connection of kind ssh, as in a file of that name.
	AuthorizedKeys []string `json:"authorizedKeys"`
	// Watch.
	Recursive bool `json:"recursive"`
}

// Shapes of what a stream of kind fill puts somewhere.
const (
	// FillVolume: a directory whose content is exchanged at one instant.
	FillVolume = "volume"
	// FillTree: a directory.
	FillTree = "tree"
	// FillFile: one file.
	FillFile = "file"
)

// Kinds of stream that a client may start.
var kinds = map[string]bool{"exec": true, "untar": true, "fill": true, "tar": true, "read": true, "write": true, "dial": true, "listen": true, "watch": true, "program": true, "ssh": true}

// ParseSpec decodes and checks START's payload.
func ParseSpec(b []byte) (*Spec, error) {
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, Errorf(CodeRequest, "START is not a stream specification.").Because(err)
	}
	bad := func(format string, args ...any) (*Spec, error) { return nil, Errorf(CodeRequest, format, args...) }
	if !ValidID(s.ID) {
		return bad("The stream id %.64q is not 16 hexadecimal digits.", s.ID)
	}
	if s.Client != "" && !ValidID(s.Client) {
		return bad("The client id %.64q is not 16 hexadecimal digits.", s.Client)
	}
	if s.Kind == "" {
		s.Kind = "exec"
	}
	if !kinds[s.Kind] {
		return bad("There is no stream kind %.64q.", s.Kind)
	}
	if len(s.Argv) > maxArgs || len(s.Env) > maxEnv {
		return nil, Errorf(CodeArguments, "%d arguments and %d environment entries are too many.", len(s.Argv), len(s.Env)).
			Because("the agent takes at most 65536 of each").Remedy("Pass the data through standard input or a file.")
	}
	for _, a := range s.Argv {
		if strings.IndexByte(a, 0) >= 0 {
			return bad("An argument contains a NUL byte.")
		}
	}
	for _, e := range s.Env {
		if i := strings.IndexByte(e, '='); i <= 0 || strings.IndexByte(e, 0) >= 0 {
			return bad("The environment entry %.64q is not NAME=VALUE.", e)
		}
	}
	for _, p := range []string{string(s.Workdir), string(s.Path), s.Address, string(s.User)} {
		if len(p) > maxPath || strings.IndexByte(p, 0) >= 0 {
			return bad("A path, address or user of %d bytes is too long or contains a NUL byte.", len(p))
		}
	}
	if s.Workdir != "" && s.Workdir[0] != '/' {
		return nil, Errorf(CodeRequest, "The working directory %.64q is not absolute.", s.Workdir).Remedy("Begin it with a slash.")
	}
	if len(s.Label) > maxLabel || s.TTY != nil && (len(s.TTY.Term) > 64 || strings.ContainsAny(s.TTY.Term, "\x00=")) {
		return bad("The label or the terminal's name is too long.")
	}
	if s.TimeoutMs < 0 || s.TimeoutMs > maxTimeout || s.GraceMs != nil && (*s.GraceMs < 0 || *s.GraceMs > maxTimeout) {
		return bad("timeoutMs or graceMs is negative or too large.")
	}
	if s.RingBytes != 0 && (s.RingBytes < minRing || s.RingBytes > maxRing) {
		return bad("ringBytes %d is not between %d and %d.", s.RingBytes, minRing, maxRing)
	}
	switch s.Kind {
	case "untar", "tar", "read", "write", "watch", "fill":
		if s.Path == "" || s.Path[0] != '/' {
			return bad("The path %.64q is not absolute.", s.Path)
		}
		if s.Offset < 0 || s.Length != nil && *s.Length < 0 || s.Mode != nil && (*s.Mode < 0 || *s.Mode > 0o7777) {
			return bad("offset, length or mode is out of range.")
		}
		if s.Kind == "fill" && s.Shape != FillVolume && s.Shape != FillTree && s.Shape != FillFile {
			return bad("Nothing of the shape %.64q can be filled.", s.Shape)
		}
	case "ssh":
		if len(s.AuthorizedKeys) == 0 || len(s.AuthorizedKeys) > maxKeys {
			return bad("ssh needs between 1 and %d authorized keys.", maxKeys)
		}
	case "dial", "listen":
		if s.Network != "tcp" && s.Network != "unix" || s.Address == "" {
			return bad("%s needs network \"tcp\" or \"unix\" and an address.", s.Kind)
		}
	}
	return &s, nil
}

// ValidID tells whether id is 16 lower-case hexadecimal digits.
func ValidID(id string) bool {
	if len(id) != 16 {
		return false
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// AttachRequest is ATTACH's payload.
type AttachRequest struct {
	Stdout  U64    `json:"stdout"`
	Stderr  U64    `json:"stderr"`
	Observe bool   `json:"observe"`
	Tail    *int   `json:"tail"`
	Client  string `json:"client"`
}

// ParseAttach decodes ATTACH's payload.
func ParseAttach(b []byte) (*AttachRequest, error) {
	var a AttachRequest
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, Errorf(CodeRequest, "ATTACH is not an attach request.").Because(err)
	}
	if a.Client != "" && !ValidID(a.Client) {
		return nil, Errorf(CodeRequest, "The client id %.64q is not 16 hexadecimal digits.", a.Client)
	}
	if a.Tail != nil && *a.Tail < 0 {
		return nil, Errorf(CodeRequest, "tail %d is negative.", *a.Tail)
	}
	return &a, nil
}

// AttachedReply is ATTACHED's payload.
type AttachedReply struct {
	ID      string `json:"id"`
	Pid     int    `json:"pid,omitempty"`
	Stdin   U64    `json:"stdin"`
	Stdout  U64    `json:"stdout"`
	Stderr  U64    `json:"stderr"`
	Created bool   `json:"created"`
}

// Exit says how a stream ended.
type Exit struct {
	ExitCode   int        `json:"exitCode"`
	Signal     string     `json:"signal,omitempty"`
	TimedOut   bool       `json:"timedOut"`
	OOMKilled  bool       `json:"oomKilled"`
	DurationMs int64      `json:"durationMs"`
	Error      *ErrorInfo `json:"error,omitempty"`
}

// Range is the part of an output that the ring still holds.
type Range struct {
	Start U64 `json:"start"`
	End   U64 `json:"end"`
}

// SSHOrder is what the agent tells the server of a connection of kind ssh, in one line before its first byte.
type SSHOrder struct {
	// HostKey is a seed of Ed25519.
	HostKey        []byte   `json:"hostKey"`
	AuthorizedKeys []string `json:"authorizedKeys"`
	// Env is the VM's environment.
	Env Texts `json:"env"`
	// Workdir is where commands of users without a home run; "" is /.
	Workdir Text `json:"workdir"`
}

// StreamInfo describes a stream (section 5).
type StreamInfo struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	Label     string `json:"label"`
	Argv      Texts  `json:"argv"`
	Pid       int    `json:"pid,omitempty"`
	User      string `json:"user"`
	TTY       bool   `json:"tty"`
	Detach    bool   `json:"detach"`
	StartedAt string `json:"startedAt"`
	Running   bool   `json:"running"`
	Attached  int    `json:"attached"`
	Exit      *Exit  `json:"exit,omitempty"`
	Stdout    Range  `json:"stdout"`
	Stderr    Range  `json:"stderr"`
}

// JSON encodes v without HTML escaping and without the trailing newline.
func JSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		// Only values of this package come here; none of them can fail.
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
