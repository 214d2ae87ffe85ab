package main

import (
	"fmt"
	"os"
	"syscall"

	"vmsan/guest/internal/files"
)

// pack writes a directory as an archive that has its name, with owners, modes, times, holes and users' attributes.
func pack(dir string) error {
	failed, err := files.Tar(dir, files.TarOptions{Attributes: true}, os.Stdout, os.Stderr)
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d files could not be read", failed)
	}
	return err
}

// unpack makes what an archive holds, in a directory; owners where this process may give files away. Devices are left
// out: they would be the host's.
func unpack(dir string) error {
	syscall.Umask(0)
	owners := syscall.Geteuid() == 0
	return files.Untar(files.UntarOptions{Path: dir, Owners: owners, Attributes: true, Plain: true}, os.Stdin)
}
