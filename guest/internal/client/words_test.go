package client

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// The table that the other client is tested with. What is not read here is handed over; what is, is read alike.
func TestWords(t *testing.T) {
	text, err := os.ReadFile("../../../test/command-line/words.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixture struct {
		Exec []struct {
			Words, Argv []string
			VM          string
			Error       bool
			Options     map[string]any
		}
	}
	if err := json.Unmarshal(text, &fixture); err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, want := range fixture.Exec {
		got, ok := ParseExec(want.Words)
		if !ok {
			continue
		}
		read++
		if want.Error {
			t.Errorf("%q is read, and refused by the other client", want.Words)
			continue
		}
		if got.VM != want.VM || !reflect.DeepEqual(got.Argv, want.Argv) {
			t.Errorf("%q: VM %q, command %q; want %q, %q", want.Words, got.VM, got.Argv, want.VM, want.Argv)
		}
		if options := optionsOf(got); !reflect.DeepEqual(options, want.Options) {
			t.Errorf("%q: options %v; want %v", want.Words, options, want.Options)
		}
	}
	if read < len(fixture.Exec)/2 {
		t.Errorf("only %d of %d command lines are read here", read, len(fixture.Exec))
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
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"ABSENT=image", "B=image"}, []string{"B=vm"}, []string{"HOST=here", "ABSENT", "A=x=y"})
	if want := []string{"B=vm", "HOST=here", "A=x=y"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
