package netcfg

import (
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"vmsan/guest/internal/wire"
)

// setSysctls writes settings below root, in the order of their names. The first
// that the kernel does not know or does not take ends it.
func setSysctls(root string, values map[string]string) error {
	paths := make([]string, 0, len(values))
	for path := range values {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	for _, path := range paths {
		f, err := os.OpenFile(filepath.Join(root, path), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(values[path])
			err = errors.Join(err, f.Close())
		}
		if err == nil {
			continue
		}
		name := strings.ReplaceAll(path, "/", ".")
		if errors.Is(err, os.ErrNotExist) {
			return wire.Errorf(wire.CodeSysctl, "The guest's kernel has no setting %s.", name).
				Remedy("Check its name; one of a module is there once the module is: load it in the guest and use sysctl there.")
		}
		return wire.Errorf(wire.CodeSysctl, "The guest's kernel does not take %.64q for %s.", values[path], name).Because(err)
	}
	return nil
}
