package boot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmsan/guest/internal/netcfg"
)

// What a machine that waits for its disks and its host say to one another: protocol/README.md section 12.
const (
	heldLine  = "VMSAN-HELD-1\n"
	goWord    = "VMSAN-GO-1"
	goingLine = "VMSAN-GOING-1\n"
)

const (
	// holdLimit is how long a machine waits to be kept or to be given its disks.
	holdLimit = 10 * time.Minute
	// maxGoLine bounds a line of the host's.
	maxGoLine = 512
	// blockDriver is where the kernel takes virtio disks up and lets them go.
	blockDriver = "/sys/bus/virtio/drivers/virtio_blk"
)

// holdForDisks is for a machine that is booted before anybody knows what for: its disks are blanks that say so. It
// lets go of them and waits for the host, which keeps the machine's memory, to go on in VMs with
// disks of their own in those places. Whatever has come of the boot until here is no one VM's.
func (m *Machine) holdForDisks() error {
	devices, err := releaseDisks()
	if err != nil {
		return fail(CodeDisk, err, "the blank disks cannot be let go")
	}
	port, _, err := m.OpenChannel()
	if err != nil {
		return err
	}
	if port == nil {
		return fail(CodeChannel, nil, "a machine can wait for its disks at a port only")
	}
	m.port = port
	m.trace("waiting for disks")
	if err := port.File().SetDeadline(time.Now().Add(holdLimit)); err != nil {
		return fail(CodeChannel, err, "no limit can be set at the port")
	}
	now, seed, err := awaitGo(port)
	if err != nil {
		return fail(CodeChannel, err, "nobody has given this machine its disks")
	}
	// Before anything is read from a disk, or drawn by chance.
	if err := errors.Join(port.File().SetDeadline(time.Time{}), netcfg.Awake(seed, now)); err != nil {
		return fail(CodeChannel, err, "the machine cannot go on")
	}
	for _, device := range devices {
		if err := os.WriteFile(filepath.Join(blockDriver, "bind"), []byte(device), 0); err != nil {
			return fail(CodeDisk, err, "the disk %s cannot be taken up", device)
		}
	}
	return nil
}

// releaseDisks lets go of all virtio disks, and gives their devices in the order of their numbers.
func releaseDisks() ([]string, error) {
	paths, err := filepath.Glob(blockDriver + "/virtio*")
	if err != nil {
		return nil, err
	}
	devices := make([]string, 0, len(paths))
	for _, path := range paths {
		devices = append(devices, filepath.Base(path))
	}
	number := func(device string) int {
		n, _ := strconv.Atoi(strings.TrimPrefix(device, "virtio")) // the kernel numbers them
		return n
	}
	slices.SortFunc(devices, func(a, b string) int { return number(a) - number(b) })
	for _, device := range devices {
		if err := os.WriteFile(filepath.Join(blockDriver, "unbind"), []byte(device), 0); err != nil {
			return nil, err
		}
	}
	return devices, nil
}

// awaitGo says that the machine waits, and reads the time (nanoseconds since the epoch) and the
// randomness with which it is to go on.
func awaitGo(host io.ReadWriter) (unixNs int64, seed []byte, err error) {
	if _, err := io.WriteString(host, heldLine); err != nil {
		return 0, nil, err
	}
	var line []byte
	var chunk [maxGoLine]byte
	for bytes.IndexByte(line, '\n') < 0 {
		n, err := host.Read(chunk[:])
		if err != nil {
			return 0, nil, err
		}
		if line = append(line, chunk[:n]...); len(line) > maxGoLine {
			return 0, nil, errors.New("the host's line is too long")
		}
	}
	words := strings.Fields(string(line))
	if len(words) != 3 || words[0] != goWord {
		return 0, nil, fmt.Errorf("the host said %q", line)
	}
	if unixNs, err = strconv.ParseInt(words[1], 10, 64); err != nil {
		return 0, nil, err
	}
	if seed, err = hex.DecodeString(words[2]); err != nil {
		return 0, nil, err
	}
	_, err = io.WriteString(host, goingLine)
	return unixNs, seed, err
}
