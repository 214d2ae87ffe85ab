package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"vmsan/standin/rules"
)

// reply is written the way Firecracker does: no reason phrase behind the status.
func reply(conn net.Conn, status int, body string) {
	head := fmt.Sprintf("HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n", status)
	if body != "" {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	_, _ = io.WriteString(conn, head+"\r\n"+body)
}

func fault(message string) string {
	text, _ := json.Marshal(map[string]string{"fault_message": message})
	return string(text)
}

// serve answers requests on one connection, one after the other.
func (m *machine) serve(conn net.Conn, maxPayload int) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		method, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		path, _, _ := strings.Cut(rest, " ")
		length := 0
		for {
			header, err := in.ReadString('\n')
			if err != nil {
				return
			}
			header = strings.TrimSpace(header)
			if header == "" {
				break
			}
			name, value, _ := strings.Cut(header, ":")
			if strings.EqualFold(name, "content-length") {
				length, _ = strconv.Atoi(strings.TrimSpace(value))
			}
		}
		if length > maxPayload {
			// Not valid JSON in the real one either: the newline is raw.
			reply(conn, 400, fmt.Sprintf("{ \"error\": \"Request payload with size %d is larger than the limit of %d allowed by server.\nAll previous unanswered requests will be dropped.\" }", length, maxPayload))
			return
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		status, text, last := m.handle(method, path, body)
		reply(conn, status, text)
		if last {
			conn.Close()
			os.Exit(exitError)
		}
	}
}

// handle gives the answer to a request, and whether the process ends after it.
func (m *machine) handle(method, path string, body []byte) (status int, text string, last bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	call := method + " " + path
	switch call {
	case m.faults.CrashAt:
		// Not by a signal: the first process of a PID namespace gets none from itself.
		os.Exit(exitCrash)
	case m.faults.HangAt:
		time.Sleep(time.Hour)
	case m.faults.RefuseAt:
		return 400, fault("The stand-in was told to refuse this."), false
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	if !strings.HasPrefix(path, "/") {
		return 400, fault("Invalid request"), false
	}
	rule, id, known, wrong := rules.Find(method, path)
	switch {
	case method == "GET" && len(body) > 0:
		return 400, fault("GET request cannot have a body."), false
	case method == "PUT" && len(body) == 0:
		return 400, fault("Empty PUT request."), false
	case method == "PATCH" && len(body) == 0:
		return 400, fault("Empty PATCH request."), false
	case !known:
		first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		return 400, fault(fmt.Sprintf("Invalid request method and/or path: %s %s.", method, first)), false
	case wrong != "":
		return 400, fault(wrong), false
	}
	var fields map[string]any
	if method != "GET" {
		if err := json.Unmarshal(body, &fields); err != nil {
			return 400, fault("An error occurred when deserializing the json body of a request: " + err.Error() + "."), false
		}
		if message := rule.Check(fields, id); message != "" {
			return 400, fault(message), false
		}
	}
	started := m.state != "Not started"
	if rule.Phase == "pre" && started {
		return 400, fault("The requested operation is not supported after starting the microVM."), false
	}
	if rule.Phase == "post" && !started {
		return 400, fault("The requested operation is not supported before starting the microVM."), false
	}
	answer, err := m.do(method, path, fields)
	if err != nil {
		_, fatal := err.(fatalError)
		return 400, fault(err.Error()), fatal
	}
	if method == "PUT" && rule.Phase == "pre" {
		m.note(path, fields)
	}
	if answer == nil {
		return 204, "", false
	}
	data, _ := json.Marshal(answer)
	return 200, string(data), false
}
