package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"vmsan/guest/internal/wire"
)

// firstWord is how long the daemon may take until its reply begins; the other client finds out what is the matter then.
const firstWord = 20 * time.Second

// progress is what the daemon says of its work.
type progress struct {
	Phase   string `json:"phase"`
	Item    string `json:"item"`
	Message string `json:"message"`
	Done    *int64 `json:"done"`
	Total   *int64 `json:"total"`
	Unit    string `json:"unit"`
}

// words is the event as a line of text, without its numbers.
func (p progress) words() string {
	text := p.Phase
	for _, part := range []string{p.Item, p.Message} {
		if part != "" {
			text += " " + part
		}
	}
	return oneLine(text)
}

// line is one of a long reply.
type line struct {
	Event    string          `json:"event"`
	ID       string          `json:"id"`
	Progress progress        `json:"progress"`
	Error    *wire.ErrorInfo `json:"error"`
	Result   json.RawMessage `json:"result"`
}

// stream asks for what is answered by lines. HTTP/1.0, so that they come as they are and not in chunks. An error means
// that nothing was done.
func (c *Conn) stream(method, path string, body []byte) error {
	headers := ""
	if body != nil {
		headers = fmt.Sprintf("content-type: application/json\r\ncontent-length: %d\r\n", len(body))
	}
	if err := c.send(method, path, "HTTP/1.0", headers, body); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(firstWord)); err != nil {
		return err
	}
	status, length, err := c.head()
	if err != nil {
		return err
	}
	if status != 200 {
		reply := make([]byte, length)
		_, _ = c.Read(reply) // cut short it is no error of the daemon's, and says so
		return refusal(status, reply)
	}
	return c.SetReadDeadline(time.Time{})
}

// lines gives each line to take, to the result; an *wire.ErrorInfo is the daemon's error.
func (c *Conn) lines(take func(line)) (json.RawMessage, error) {
	decoder := json.NewDecoder(c)
	for {
		var said line
		if err := decoder.Decode(&said); err != nil {
			return nil, err
		}
		switch {
		case said.Event == "error" && said.Error != nil:
			return nil, said.Error
		case said.Event == "result":
			return said.Result, nil
		}
		take(said)
	}
}

// removeTries is how often a VM's removal is asked for while daemons die under it.
const removeTries = 10

// remove removes a VM and waits until nothing of it is left. One that is gone is no error.
func (d *Daemon) remove(id, launcher string) error {
	for try := 1; ; try++ {
		err := d.removeOnce(id)
		var info *wire.ErrorInfo
		switch {
		case err == nil:
			return nil
		case errors.As(err, &info) && info.Code == "ERR_VM_NOT_FOUND":
			return nil
		case errors.As(err, &info) && !isOtherVersion(err), try == removeTries:
			return err
		}
		if NotListening(err) || isOtherVersion(err) {
			if err := startDaemon(launcher); err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(try) * 50 * time.Millisecond)
	}
}

func (d *Daemon) removeOnce(id string) error {
	conn, err := d.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.send("DELETE", "/v1/vms/"+id+"?force=true", "HTTP/1.1", "", nil); err != nil {
		return err
	}
	status, body, err := conn.reply()
	if err != nil {
		return err
	}
	if status >= 300 {
		return refusal(status, body)
	}
	return nil
}
