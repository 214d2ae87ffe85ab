// Command client is the native client of `vmsan exec`, started by bin/vmsan: `client LAUNCHER exec WORD…`, where
// LAUNCHER is the path of bin/vmsan, which it runs again for what it leaves to the client in TypeScript.
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
	if words[0] == "exec" {
		if command, ok := client.ParseExec(words[1:]); ok {
			if socket, ok := client.SocketOf(os.Getenv); ok {
				daemon := &client.Daemon{Socket: socket, Version: version}
				if status, done := client.Exec(command, daemon, launcher); done {
					os.Exit(status)
				}
			}
		}
	}
	err := syscall.Exec(launcher, append([]string{launcher}, words...), client.Environment())
	fmt.Fprintf(os.Stderr, "vmsan: cannot run %s: %v\n", launcher, err)
	os.Exit(1)
}
