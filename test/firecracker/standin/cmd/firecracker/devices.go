package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
)

type drive struct {
	ID       string `json:"id"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly"`
	file     *os.File
}

// card is a network card; its tap stays open from the PUT on.
type card struct {
	ID   string `json:"id"`
	Host string `json:"host"`
	MAC  string `json:"mac"`
	tap  *tap
}

// putCard attaches to the tap, and lets go of one that the same card had before.
func (m *machine) putCard(f map[string]any) error {
	c := &card{ID: text(f, "iface_id"), Host: text(f, "host_dev_name"), MAC: text(f, "guest_mac")}
	if err := c.open(); err != nil {
		return fmt.Errorf("Network config error: Could not create the network device: %w", err)
	}
	for i, old := range m.Cards {
		if old.ID == c.ID {
			old.tap.file.Close()
			m.Cards[i] = c
			return nil
		}
	}
	m.Cards = append(m.Cards, c)
	return nil
}

func (c *card) open() (err error) {
	if c.tap, err = openTap(c.Host); err != nil {
		return fmt.Errorf("Open tap device failed: %w", err)
	}
	return nil
}

// putMetrics opens the file the way Firecracker does: to be written from its beginning.
func (m *machine) putMetrics(f map[string]any) (err error) {
	const prefix = "Metrics error: Cannot initialize the metrics system due to bad user input: "
	if m.metrics != nil {
		return errors.New(prefix + "already initialized")
	}
	m.metrics, err = openLog(text(f, "metrics_path"))
	if err != nil {
		return errors.New(prefix + osError(err))
	}
	_, err = m.metrics.WriteString("{}\n")
	return err
}

// openLog opens a file for what is written while the machine runs: read and write, not appending.
func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
}

func (m *machine) putDrive(f map[string]any) error {
	readOnly, _ := f["is_read_only"].(bool)
	d := drive{ID: text(f, "drive_id"), Path: text(f, "path_on_host"), ReadOnly: readOnly}
	if err := d.open(); err != nil {
		return fmt.Errorf("Drive config error: Unable to create the virtio block device: Virtio backend error: %w", err)
	}
	for i, old := range m.Drives {
		if old.ID == d.ID {
			old.file.Close()
			m.Drives[i] = d
			return nil
		}
	}
	m.Drives = append(m.Drives, d)
	return nil
}

// open opens the disk for what it is to be used for; it stays open.
func (d *drive) open() (err error) {
	mode := os.O_RDWR
	if d.ReadOnly {
		mode = os.O_RDONLY
	}
	if d.file, err = os.OpenFile(d.Path, mode, 0); err != nil {
		return fmt.Errorf("Error manipulating the backing file: %s %s", osError(err), d.Path)
	}
	return nil
}

// restoreCards attaches to the taps that the cards had, or to those that the request names instead.
func (m *machine) restoreCards(f map[string]any) error {
	overrides, _ := f["network_overrides"].([]any)
	for _, one := range overrides {
		override, _ := one.(map[string]any)
		at := slices.IndexFunc(m.Cards, func(c *card) bool { return c.ID == text(override, "iface_id") })
		if at < 0 {
			return fmt.Errorf("Unknown Network Device")
		}
		m.Cards[at].Host = text(override, "host_dev_name")
	}
	for _, c := range m.Cards {
		if err := c.open(); err != nil {
			return err
		}
	}
	return nil
}
