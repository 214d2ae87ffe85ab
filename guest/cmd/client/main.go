// Command client is the native client of `vmsan exec`, `vmsan run` and `vmsan image pull`, started by bin/vmsan:
// `client LAUNCHER COMMAND WORD…`, where LAUNCHER is the path of bin/vmsan, which it runs again for what it leaves to the client in TypeScript.
package main

import (
	"fmt"
	"os"
	"syscall"

	"vmsan/guest/internal/client"
)

// version is set at link time.
var version = "dev"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: client LAUNCHER COMMAND WORD...; it is started by bin/vmsan")
		os.Exit(2)
	}
	launcher, words := os.Args[1], os.Args[2:]
	if socket, ok := client.SocketOf(os.Getenv); ok {
		daemon := &client.Daemon{Socket: socket, Version: version}
		if status, done := try(daemon, launcher, words); done {
			os.Exit(status)
		}
	}
	err := syscall.Exec(launcher, append([]string{launcher}, words...), client.Environment())
	fmt.Fprintf(os.Stderr, "vmsan: cannot run %s: %v\n", launcher, err)
	os.Exit(1)
}

// try does what is asked for. False: the other client is to do it.
func try(daemon *client.Daemon, launcher string, words []string) (status int, done bool) {
	switch words[0] {
	case "exec":
		if command, ok := client.ParseExec(words[1:]); ok {
			return client.Exec(command, daemon, launcher)
		}
	case "run":
		if command, ok := client.ParseRun(words[1:]); ok && client.IsPlainEnvironment(os.Getenv) {
			return client.Run(command, daemon, launcher)
		}
	case "image":
		if len(words) < 2 || words[1] != "pull" {
			break
		}
		if image, ok := client.ParsePull(words[2:]); ok && client.IsPlainEnvironment(os.Getenv) {
			return client.Pull(image, daemon)
		}
	}
	return 0, false
}
