package netcfg

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"vmsan/guest/internal/wire"
)

func TestSysctlsAreWrittenAndUnknownOnesNamed(t *testing.T) {
	root := t.TempDir()
	known := filepath.Join(root, "net", "ip_forward")
	if err := os.Mkdir(filepath.Dir(known), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := setSysctls(root, map[string]string{"net/ip_forward": "1"}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(known); err != nil || string(b) != "1" {
		t.Fatalf("the setting is %q (%v)", b, err)
	}
	var info *wire.ErrorInfo
	err := setSysctls(root, map[string]string{"net/nothing": "1"})
	if !errors.As(err, &info) || info.Code != wire.CodeSysctl || info.Fix == "" {
		t.Fatalf("an unknown setting gives %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "net", "nothing")); err == nil {
		t.Fatal("an unknown setting was made")
	}
}

func TestSysctlsOutsideAreRefused(t *testing.T) {
	for _, path := range []string{"../x", "/etc/passwd", "net/../../x", "net//x", ""} {
		if _, err := check(&Request{Sysctls: map[string]string{path: "1"}}); err == nil {
			t.Errorf("%q is taken", path)
		}
	}
}
