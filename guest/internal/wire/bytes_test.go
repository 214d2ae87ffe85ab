package wire

import (
	"slices"
	"strings"
	"testing"
)

func TestBytesOfSpec(t *testing.T) {
	all := make([]byte, 255)
	for i := range all {
		all[i] = byte(i + 1)
	}
	words := Texts{"", "plain", "h\xffA", string(all), `\udcff`, `\\udcff`, "\U0001f600\xf0\x9f", "\ufffd", "\xed\xb3\xbf", "a\nb\"c"}
	s := &Spec{ID: "0123456789abcdef", Argv: words, Env: []string{"X=\xffB"}, Workdir: "/\xfe", User: "\xfd"}
	got, err := ParseSpec(JSON(s))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Argv, words) || got.Env[0] != "X=\xffB" || got.Workdir != "/\xfe" || got.User != "\xfd" {
		t.Errorf("%q %q %q %q", got.Argv, got.Env, got.Workdir, got.User)
	}
	long := strings.Repeat("\xff", 128<<10)
	if got, err = ParseSpec(JSON(&Spec{ID: s.ID, Argv: []string{long}})); err != nil || got.Argv[0] != long {
		t.Error("a long one", err)
	}
	if got, err = ParseSpec([]byte(`{"id":"0123456789abcdef","argv":null,"path":"/\udc80","label":"\udcff"}`)); err != nil || got.Argv != nil || got.Path != "/\x80" {
		t.Errorf("%+v %v", got, err)
	}
	// As JSON.stringify of TypeScript writes it; a pair of surrogates is one character.
	got, err = ParseSpec([]byte(`{"id":"0123456789abcdef","argv":["\udcff\ud83d\ude00\ud83d\udca9","\\udcff"]}`))
	if err != nil || got.Argv[0] != "\xff\U0001f600\U0001f4a9" || got.Argv[1] != `\udcff` {
		t.Errorf("%+v %v", got, err)
	}
}
