package proc

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFurtherGroupsStandBehindCommas(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("an agent that is not root's becomes nobody else")
	}
	etc := t.TempDir()
	files := map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n",
		"group":  "users:x:100:\nwheel:x:10:app\nextra:x:2000:\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for spec, want := range map[string][]uint32{
		"app:,2000":           {100, 10, 2000},
		"app:,extra,7":        {100, 10, 2000, 7},
		"app:users,2000,7":    {100, 2000, 7},
		"app:,10":             {100, 10},
		"0:,5":                {0, 5},
		":,5":                 {0, 5},
		"4000:4000,4000,1":    {4000, 1},
		"app":                 {100, 10},
		"app:100,2000:ignore": {100, 2000},
	} {
		u, err := LookupUser(etc, spec)
		if err != nil || !slices.Equal(u.Groups, want) || u.GID != want[0] {
			t.Errorf("%s: %+v (%v), not %v", spec, u, err, want)
		}
	}
	for _, spec := range []string{"app:,nosuch", "app:,5,", "app:users,-1", "app:,4294967295", "none:,5"} {
		if u, err := LookupUser(etc, spec); err == nil {
			t.Errorf("%s is taken: %+v", spec, u)
		}
	}
}
