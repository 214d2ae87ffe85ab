package client

import (
	"path/filepath"

	"vmsan/guest/internal/wire"
)

// registryVariables say how registries are reached, places are those that hold paths: src/util/registry-env.ts.
var (
	registryVariables = []string{
		"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY",
		"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "HOME", "XDG_RUNTIME_DIR",
		"PATH", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME", "PASSWORD_STORE_DIR",
	}
	places = map[string]bool{"DOCKER_CONFIG": true, "REGISTRY_AUTH_FILE": true, "HOME": true, "XDG_RUNTIME_DIR": true}
)

// IsPlainEnvironment tells whether nothing in the environment asks `run` or `image pull` for what the other client alone does: traces, a
// word about KVM, another limit of boots.
func IsPlainEnvironment(getenv func(string) string) bool {
	for _, name := range []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "VMSAN_KVM", "VMSAN_BOOT_TIMEOUT",
	} {
		if getenv(name) != "" {
			return false
		}
	}
	return true
}

// registryAccess is how this process reaches registries.
func registryAccess(getenv func(string) string) map[string]any {
	env := map[string]string{}
	for _, name := range registryVariables {
		value := getenv(name)
		if value == "" {
			continue
		}
		if places[name] {
			if absolute, err := filepath.Abs(value); err == nil {
				value = absolute
			}
		}
		env[name] = value
	}
	return map[string]any{"env": env}
}

// request is what the daemon is asked for. What the other client says for the same words and where nothing is asked for
// is in test/command-line/requests.json, which both are tested with.
func (c *RunCommand) request(getenv func(string) string) map[string]any {
	type list = []any
	none := map[string]any{}
	r := map[string]any{
		"image": c.Image, "vcpus": max(c.VCPUs, 1), "memMib": 512, "diskSizeBytes": 10 << 30, "diskMode": "overlay",
		"project": "", "labels": none, "driver": "auto", "env": wire.Texts(callersValues(c.Env)),
		"policy": map[string]any{
			"mode": "allow-all", "allowedDomains": list{}, "allowedCidrs": list{}, "deniedCidrs": list{},
			"allowedPorts": list{}, "allowHostPorts": list{}, "allowIcmp": false, "allowUdp": false,
		},
		"ports": list{}, "networks": list{},
		"isolation": map[string]bool{"seccomp": true, "pidNamespace": true, "cgroup": true, "networkNamespace": true},
		"pull":      "missing", "registry": registryAccess(getenv), "host": none,
		"mounts": list{}, "kernelArgs": list{}, "sysctls": none, "ephemeral": true,
	}
	if c.Memory > 0 {
		r["memMib"] = c.Memory
	}
	if c.User != "" {
		r["user"] = c.User
	}
	if c.Workdir != "" {
		r["workdir"] = c.Workdir
	}
	if warm := getenv("VMSAN_WARM"); warm != "" {
		r["warm"] = warm == "on"
	}
	return r
}
