// Command nettool is the test bench of vmsan's network policies: what tries to get out of a
// guest (probe), the world it tries to reach (serve), a wire between a tap and a namespace that
// stands in for a guest (bridge), an observer of what passes (watch), and a client of HTTP (get). One
// static binary, so that it can be copied into a real guest.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// emit prints one JSON line.
func emit(value any) {
	line, _ := json.Marshal(value)
	outMu.Lock()
	defer outMu.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

var outMu sync.Mutex

// fail ends the program with a message.
func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "nettool:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: nettool probe | serve | bridge | watch | get | say | repeat …")
		os.Exit(2)
	}
	if !slices.Contains([]string{"probe", "get", "say", "repeat"}, os.Args[1]) {
		// The one that started us holds the other end: end with it, however it ends.
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	switch os.Args[1] {
	case "probe":
		probeAll()
	case "serve":
		serve(os.Args[2:])
	case "bridge":
		bridge(os.Args[2:])
	case "watch":
		watch()
	case "get":
		// As a program of Go's asks a server for whom it has a key in its environment.
		request, err := http.NewRequest("GET", strings.Join(os.Args[2:], ""), nil)
		fail(err)
		request.Header.Set("X-Key", os.Getenv("TOKEN"))
		reply, err := http.DefaultClient.Do(request)
		fail(err)
		_, err = io.Copy(os.Stdout, reply.Body)
		fail(err)
	case "say":
		fmt.Println(strings.Join(os.Args[2:], " "))
	case "repeat":
		// Input comes back; the word is the exit status.
		_, err := io.Copy(os.Stdout, os.Stdin)
		fail(err)
		status, err := strconv.Atoi(strings.Join(os.Args[2:], ""))
		fail(err)
		os.Exit(status)
	default:
		fail(fmt.Errorf("no command %q", os.Args[1]))
	}
}

// probeAll answers probes, one JSON object a line, several at a time, until input ends.
func probeAll() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	var running sync.WaitGroup
	slots := make(chan struct{}, 32)
	for input.Scan() {
		var p probe
		fail(json.Unmarshal(input.Bytes(), &p))
		slots <- struct{}{}
		running.Add(1)
		go func() {
			defer running.Done()
			defer func() { <-slots }()
			emit(struct {
				ID     int    `json:"id"`
				Result string `json:"result"`
			}{p.ID, p.run()})
		}()
	}
	running.Wait()
}
