// Package blockdev finds the VM's disks by what is on them: VMMs name and number
// them as they please.
package blockdev

import (
	"os"
	"path/filepath"
	"strings"
)

// ModulesLabel is the label of the read-only disk with the kernel's modules.
const ModulesLabel = "vmsan-modules"

// VolumePrefix begins the labels of volumes; the host makes them and sees to it
// before each start that they are its own.
const VolumePrefix = "vmsan-v"

// BlankLabel is the label of the disk of a machine that is to wait for others.
const BlankLabel = "vmsan-blank"

// Names lists the virtio disks.
func Names() []string {
	paths, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

// Label reads the label in the ext4 superblock of a disk, "" if there is none.
func Label(disk string) string {
	f, err := os.Open("/dev/" + disk)
	if err != nil {
		return ""
	}
	defer f.Close()
	var label [16]byte
	if _, err := f.ReadAt(label[:], 1024+0x78); err != nil {
		return ""
	}
	return strings.TrimRight(string(label[:]), "\x00")
}

// ByLabel finds the disk with a label, "" if there is none.
func ByLabel(label string) string {
	for _, disk := range Names() {
		if Label(disk) == label {
			return disk
		}
	}
	return ""
}
