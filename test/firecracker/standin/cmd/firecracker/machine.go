package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
)

// fatalError is answered, then the process ends: a failed snapshot load.
type fatalError struct{ error }

// machine is the state of the microVM.
type machine struct {
	mu     sync.Mutex
	id     string
	faults Faults
	dir    string // where the guest's own files go
	state  string

	Vcpus   float64        `json:"vcpus"`
	MemMib  float64        `json:"memMib"`
	Drives  []drive        `json:"drives"`
	Cards   []*card        `json:"cards"`
	Vsock   string         `json:"vsock"`
	Balloon map[string]any `json:"balloon"`
	Initrd  string         `json:"initrd"`
	kernel  string
	args    string
	metrics *os.File
	// config is what GET /vm/config gives: the bodies that were accepted.
	config map[string]any
	// resources have been configured: no snapshot may be loaded any more.
	configured bool
	listener   net.Listener
	guest      *guest
}

func newMachine(id string, faults Faults, dir string) *machine {
	return &machine{id: id, faults: faults, dir: dir, state: "Not started", Vcpus: 1, MemMib: 128, config: map[string]any{}}
}

func text(fields map[string]any, name string) string {
	s, _ := fields[name].(string)
	return s
}

// do carries out a request that is known to be well-formed and in order.
func (m *machine) do(method, path string, f map[string]any) (any, error) {
	call := method + " " + path
	if method != "GET" && !strings.HasPrefix(path, "/logger") && path != "/metrics" &&
		path != "/snapshot/load" && path != "/actions" {
		defer func() { m.configured = true }()
	}
	switch {
	case call == "GET /":
		return map[string]string{"id": m.id, "state": m.state, "vmm_version": m.faults.Version, "app_name": "Firecracker"}, nil
	case call == "GET /version":
		return map[string]string{"firecracker_version": m.faults.Version}, nil
	case call == "GET /machine-config":
		return m.machineConfig(), nil
	case call == "GET /vm/config":
		return m.fullConfig(), nil
	case call == "GET /balloon" || call == "GET /balloon/statistics" || call == "PATCH /balloon":
		return m.balloon(call, f)
	case call == "PUT /balloon":
		m.Balloon = f
	case path == "/machine-config":
		return nil, m.putMachineConfig(f)
	case call == "PUT /boot-source":
		return nil, m.bootSource(f)
	case strings.HasPrefix(call, "PUT /drives/"):
		return nil, m.putDrive(f)
	case strings.HasPrefix(call, "PUT /network-interfaces/"):
		return nil, m.putCard(f)
	case call == "PUT /vsock":
		return nil, m.bindVsock(text(f, "uds_path"))
	case call == "PUT /metrics":
		return nil, m.putMetrics(f)
	case call == "PUT /actions":
		return nil, m.action(text(f, "action_type"))
	case call == "PATCH /vm":
		m.state = "Running"
		if text(f, "state") == "Paused" {
			m.state = "Paused"
		}
		m.guest.pause(m.state == "Paused")
	case call == "PUT /snapshot/create":
		return nil, m.createSnapshot(f)
	case call == "PUT /snapshot/load":
		if err := m.loadSnapshot(f); err != nil {
			return nil, fatalError{fmt.Errorf("Load snapshot error: %w", err)}
		}
	}
	return nil, nil
}

// maxCommandLine is that of Firecracker, with the byte that ends it.
const maxCommandLine = 2048

func (m *machine) bootSource(f map[string]any) error {
	for name, complaint := range map[string]string{
		"kernel_image_path": "The kernel file cannot be opened: ",
		"initrd_path":       "The initrd file cannot be opened due to invalid path or invalid permissions. ",
	} {
		path := text(f, name)
		if path == "" {
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			return errors.New("Boot source error: " + complaint + osError(err))
		}
		file.Close()
	}
	if len(text(f, "boot_args")) >= maxCommandLine {
		return errors.New("Boot source error: The kernel command line is invalid: Inserting string would make command line too long.")
	}
	m.kernel, m.Initrd, m.args = text(f, "kernel_image_path"), text(f, "initrd_path"), text(f, "boot_args")
	return nil
}

func (m *machine) balloon(call string, f map[string]any) (any, error) {
	if m.Balloon == nil {
		return nil, fmt.Errorf("Balloon config error: No balloon device found.")
	}
	if call == "GET /balloon" {
		return m.Balloon, nil
	}
	if !m.guest.ready() {
		return nil, fmt.Errorf("Balloon config error: Device is inactive, check if balloon driver is enabled in guest kernel.")
	}
	if call == "PATCH /balloon" {
		m.Balloon["amount_mib"] = f["amount_mib"]
		return nil, nil
	}
	if interval, _ := m.Balloon["stats_polling_interval_s"].(float64); interval == 0 {
		return nil, fmt.Errorf("Balloon config error: Cannot get statistics: they are disabled.")
	}
	amount, _ := m.Balloon["amount_mib"].(float64)
	return map[string]any{"target_pages": amount * 256, "actual_pages": amount * 256, "target_mib": amount, "actual_mib": amount,
		"free_memory": (m.MemMib - amount) * 524288, "total_memory": m.MemMib * 1048576, "available_memory": (m.MemMib - amount) * 786432}, nil
}

func (m *machine) action(name string) error {
	if name != "InstanceStart" {
		if m.state == "Not started" {
			return fmt.Errorf("The requested operation is not supported before starting the microVM.")
		}
		return nil
	}
	if m.state != "Not started" {
		return fmt.Errorf("The requested operation is not supported after starting the microVM.")
	}
	if m.kernel == "" {
		return fmt.Errorf("Start microvm error: Cannot start microvm without kernel configuration.")
	}
	head := make([]byte, 4)
	file, err := os.Open(m.kernel)
	if err == nil {
		_, err = file.Read(head)
		file.Close()
	}
	if err != nil || string(head) != "\x7fELF" {
		return fmt.Errorf("Start microvm error: Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image")
	}
	g, err := boot(m, m.Initrd, "Linux version 0 (stand-in)\nCommand line: "+m.args+"\n")
	if err != nil {
		return fmt.Errorf("Start microvm error: %v", err)
	}
	m.guest, m.state = g, "Running"
	return nil
}

// createSnapshot writes what is needed to go on; the guest's memory is not among it.
func (m *machine) createSnapshot(f map[string]any) error {
	if m.state != "Paused" {
		return fmt.Errorf("Create snapshot error: Cannot save the microVM state: the microVM is not paused")
	}
	state, _ := json.Marshal(m)
	if err := os.WriteFile(text(f, "snapshot_path"), append([]byte("STANDIN-STATE\n"), state...), 0o600); err != nil {
		return fmt.Errorf("Create snapshot error: Cannot perform open on the snapshot backing file: %v", err)
	}
	memory, err := os.OpenFile(text(f, "mem_file_path"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("Create snapshot error: Cannot create memory file: %v", err)
	}
	defer memory.Close()
	m.guest.dropConnections()
	// The "memory" is the guest's initramfs behind its size, sparse as the real one.
	data, err := os.ReadFile(m.Initrd)
	if err != nil {
		return err
	}
	if _, err := memory.Write(data); err != nil {
		return fmt.Errorf("Create snapshot error: Cannot write memory file: %v", err)
	}
	return memory.Truncate(int64(m.MemMib) << 20)
}

func (m *machine) loadSnapshot(f map[string]any) error {
	if m.configured {
		return fmt.Errorf("Loading a microVM snapshot not allowed after configuring boot-specific resources.")
	}
	data, err := os.ReadFile(text(f, "snapshot_path"))
	if err != nil {
		return fmt.Errorf("Failed to open snapshot file: %v", err)
	}
	state, ok := strings.CutPrefix(string(data), "STANDIN-STATE\n")
	if !ok || json.Unmarshal([]byte(state), m) != nil {
		return fmt.Errorf("Failed to restore from snapshot: Failed to get snapshot state from file: Bad magic value")
	}
	backend, _ := f["mem_backend"].(map[string]any)
	memory := text(backend, "backend_path")
	if backend == nil {
		memory = text(f, "mem_file_path")
	}
	if info, err := os.Stat(memory); err != nil || info.Size() != int64(m.MemMib)<<20 {
		return fmt.Errorf("Failed to restore from snapshot: Failed to load guest memory: %v", err)
	}
	for i := range m.Drives {
		if err := m.Drives[i].open(); err != nil {
			return fmt.Errorf("Failed to restore from snapshot: Failed to restore devices: Block: %w", err)
		}
	}
	if err := m.restoreCards(f); err != nil {
		return fmt.Errorf("Failed to restore from snapshot: Failed to restore devices: Net: %w", err)
	}
	if override, ok := f["vsock_override"].(map[string]any); ok {
		m.Vsock = text(override, "uds_path")
	}
	if m.Vsock != "" {
		if err := m.bindVsock(m.Vsock); err != nil {
			return err
		}
	}
	g, err := boot(m, memory, "")
	if err != nil {
		return err
	}
	m.guest, m.state = g, "Paused"
	g.pause(true)
	if resume, _ := f["resume_vm"].(bool); resume {
		m.state = "Running"
		g.pause(false)
	}
	return nil
}
