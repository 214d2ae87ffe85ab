package client

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"vmsan/guest/internal/wire"
)

// fixture reads a table of test/command-line.
func fixture(t *testing.T, name string, into any) {
	text, err := os.ReadFile("../../../test/command-line/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// wordsCase is how words are read.
type wordsCase struct {
	Words, Argv []string
	VM          string
	Error       bool
	Options     map[string]any
}

// The tables that the other client is tested with. What is not read here is handed over; what is, is read alike.
func TestWords(t *testing.T) {
	var tables struct{ Exec, Run []wordsCase }
	fixture(t, "words.json", &tables)
	checkWords(t, tables.Exec, func(words []string) (*Command, map[string]any, string, bool) {
		c, ok := ParseExec(words)
		if !ok {
			return nil, nil, "", false
		}
		return c, optionsOf(c), c.VM, true
	})
	checkWords(t, tables.Run, func(words []string) (*Command, map[string]any, string, bool) {
		c, ok := ParseRun(words)
		if !ok {
			return nil, nil, "", false
		}
		options := optionsOf(&c.Command)
		if c.rm {
			options["rm"] = true
		}
		for name, value := range map[string]int{"memory": c.Memory, "vcpus": c.VCPUs} {
			if value > 0 {
				options[name] = strconv.Itoa(value)
			}
		}
		return &c.Command, options, c.Image, true
	})
}

// checkWords compares what parse makes of words with a table.
func checkWords(t *testing.T, table []wordsCase, parse func([]string) (*Command, map[string]any, string, bool)) {
	read := 0
	for _, want := range table {
		got, options, name, ok := parse(want.Words)
		if !ok {
			continue
		}
		read++
		if want.Error {
			t.Errorf("%q is read, and refused by the other client", want.Words)
			continue
		}
		if name != want.VM || !slices.Equal(got.Argv, want.Argv) {
			t.Errorf("%q: %q, command %q; want %q, %q", want.Words, name, got.Argv, want.VM, want.Argv)
		}
		if !reflect.DeepEqual(options, want.Options) {
			t.Errorf("%q: options %v; want %v", want.Words, options, want.Options)
		}
	}
	if read < len(table)/2 {
		t.Errorf("only %d of %d command lines are read here", read, len(table))
	}
}

// What the daemon is asked for is what the other client asks for.
func TestRequests(t *testing.T) {
	var table struct {
		Run []struct {
			Words   []string
			Request map[string]any
		}
	}
	fixture(t, "requests.json", &table)
	environment := map[string]string{"HOME": "/home/me/", "PATH": "/bin", "LANG": "C"}
	for _, want := range table.Run {
		c, ok := ParseRun(want.Words)
		if !ok {
			t.Errorf("%q is not read", want.Words)
			continue
		}
		var got map[string]any
		getenv := func(name string) string { return environment[name] }
		if err := json.Unmarshal(wire.JSON(c.request(getenv)), &got); err != nil {
			t.Fatal(err)
		}
		want.Request["registry"] = map[string]any{"env": map[string]any{"HOME": "/home/me", "PATH": "/bin"}}
		want.Request["host"] = map[string]any{}
		if !reflect.DeepEqual(got, want.Request) {
			t.Errorf("%q asks for %v; want %v", want.Words, got, want.Request)
		}
	}
	if len(table.Run) == 0 {
		t.Error("no requests to compare")
	}
	for warm, want := range map[string]any{"": nil, "on": true, "off": false} {
		c := &RunCommand{Image: "base"}
		request := c.request(func(name string) string { return map[string]string{"VMSAN_WARM": warm}[name] })
		if request["warm"] != want {
			t.Errorf("VMSAN_WARM=%s asks for %v", warm, request["warm"])
		}
	}
}

// optionsOf is what is set, as the table has it.
func optionsOf(c *Command) map[string]any {
	options := map[string]any{}
	for name, set := range map[string]bool{"sudo": c.sudo, "tty": c.TTY, "interactive": c.Interactive} {
		if set {
			options[name] = true
		}
	}
	if c.NoExtend {
		options["extendTimeout"] = false
	}
	for name, value := range map[string]string{"workdir": c.Workdir, "user": c.User} {
		if value != "" && !(name == "user" && c.sudo && value == "root") {
			options[name] = value
		}
	}
	if c.TimeoutMs > 0 {
		options["timeout"] = duration(c.TimeoutMs)
	}
	if c.Env != nil {
		var env []any
		for _, entry := range c.Env {
			env = append(env, entry)
		}
		options["env"] = env
	}
	return options
}

func TestWordsThatAreHandedOver(t *testing.T) {
	for _, words := range [][]string{
		{}, {"vm"}, {"vm", "--"}, {"-w"}, {"--json", "vm", "true"}, {"-d", "vm", "true"}, {"--sudo=yes", "vm", "true"},
		{"--timeout", "0s", "vm", "true"}, {"--timeout", "999999h", "vm", "true"}, {"VM", "true"}, {"vm", "\xff"},
		{"-e", "", "vm", "true"}, {"-e", "=1", "vm", "true"}, {"--help"}, {"-it", "vm", "true"},
	} {
		if c, ok := ParseExec(words); ok {
			t.Errorf("%q is read as %+v", words, c)
		}
	}
	for _, words := range [][]string{
		{}, {"--sudo", "image"}, {"--json", "image"}, {"--verbose", "image"}, {"-p", "80", "image"}, {"-m", "1g", "image"},
		{"-m", "-1", "image"}, {"--vcpus=x", "image"}, {"--rm=yes", "image"}, {"oci:/dir", "true"}, {"rootfs:file.tar"},
		{"oci-archive:-"}, {"docker-daemon:image"}, {"./dir"}, {"image", "\xff"}, {"Image"}, {"--entrypoint=", "image"},
	} {
		if c, ok := ParseRun(words); ok {
			t.Errorf("run %q is read as %+v", words, c)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"ABSENT=image", "B=image"}, []string{"B=vm"}, []string{"HOST=here", "ABSENT", "A=x=y"})
	if want := []string{"B=vm", "HOST=here", "A=x=y"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
