package client

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"vmsan/guest/internal/wire"
)

// TestImageThatIsVM: whoever means a VM by what is no image is told the command for those.
func TestImageThatIsVM(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "d.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/vms/box" {
			_, _ = w.Write([]byte(`{"id":"vm-00000001","name":"box"}`))
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	d := &Daemon{Socket: socket, Version: "test"}
	info := &wire.ErrorInfo{Code: "ERR_IMAGE_NETWORK", Fix: "Check the network."}
	for image, word := range map[string]string{"box": "vmsan exec box", "alpine": "network", "a/box": "network"} {
		if fix := d.ofVM(info, image).Fix; !strings.Contains(fix, word) {
			t.Errorf("%s: %s", image, fix)
		}
	}
	if other := (&wire.ErrorInfo{Code: "ERR_BOOT_TIMEOUT"}); d.ofVM(other, "box") != other {
		t.Error("another failure is taken for this one")
	}
}
