package netcfg

import (
	"fmt"
	"os"
	"syscall"
)

// placeAttribute marks what the agent has made to mount something there, with what it was then (mode,
// owner, group, path): as long as it is that and empty, it is none of what the user has changed of the image.
const placeAttribute = "trusted.vmsan.place"

// overlayMagic is statfs(2)'s number of the file system that changes are told of. On no other is anything
// marked: what is made on a share is made on the host.
const overlayMagic = 0x794c7630

// MarkPlace marks what lies at file now; the guest knows it by path.
func MarkPlace(file, path string) {
	var fs syscall.Statfs_t
	var st syscall.Stat_t
	if syscall.Statfs(file, &fs) != nil || fs.Type != overlayMagic || syscall.Lstat(file, &st) != nil {
		return
	}
	mark := fmt.Sprintf("%o %d %d %s", st.Mode&0o7777, st.Uid, st.Gid, path)
	if err := syscall.Setxattr(file, placeAttribute, []byte(mark), 0); err != nil {
		// It is then taken for the user's: an empty directory more in an image.
		fmt.Fprintf(os.Stderr, "vmsan-agent: warning: %s cannot be marked: %v\n", path, err)
	}
}
