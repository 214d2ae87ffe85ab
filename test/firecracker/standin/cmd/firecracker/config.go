package main

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// putMachineConfig keeps the size of the machine, which is checked as a whole.
func (m *machine) putMachineConfig(f map[string]any) error {
	vcpus, memory := m.Vcpus, m.MemMib
	if v, ok := f["vcpu_count"].(float64); ok {
		vcpus = v
	}
	if v, ok := f["mem_size_mib"].(float64); ok {
		memory = v
	}
	smt, _ := f["smt"].(bool)
	if vcpus < 1 || vcpus > 32 || smt && vcpus != 1 && int(vcpus)%2 != 0 {
		return errors.New("Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.")
	}
	if memory < 1 {
		return errors.New("Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.")
	}
	m.Vcpus, m.MemMib = vcpus, memory
	return nil
}

func (m *machine) machineConfig() map[string]any {
	return map[string]any{"vcpu_count": m.Vcpus, "mem_size_mib": m.MemMib, "smt": false, "track_dirty_pages": false, "huge_pages": "None"}
}

// fullConfig is the whole configuration, as a file that --config-file would take.
func (m *machine) fullConfig() map[string]any {
	full := map[string]any{
		"balloon": nil, "boot-source": map[string]any{"kernel_image_path": "", "initrd_path": nil, "boot_args": nil},
		"cpu-config": nil, "drives": []any{}, "entropy": nil, "logger": nil, "memory-hotplug": nil, "metrics": nil,
		"mmds-config": nil, "network-interfaces": []any{}, "pmem": []any{}, "vsock": nil,
	}
	maps.Copy(full, m.config)
	full["machine-config"] = m.machineConfig()
	return full
}

// note keeps an accepted body for fullConfig: lists of drives and cards by their names.
func (m *machine) note(path string, f map[string]any) {
	section, id, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !slices.Contains([]string{"drives", "network-interfaces", "pmem"}, section) {
		m.config[strings.ReplaceAll(path[1:], "/", "-")] = f
		return
	}
	list, _ := m.config[section].([]any)
	for i, one := range list {
		known, _ := one.(map[string]any)
		if known["drive_id"] == id || known["iface_id"] == id {
			list[i] = f
			return
		}
	}
	m.config[section] = append(list, f)
}
