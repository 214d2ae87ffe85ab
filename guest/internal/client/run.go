package client

import (
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"vmsan/guest/internal/wire"
)

// interrupts end a VM that is being made. SIGQUIT among them, at which Go would print its stacks.
var interrupts = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// Run makes a VM, runs one command in it, joined to this process, and removes it. False: nothing is left of it, no
// program of the image was started, and the other client is to do it.
func Run(c *RunCommand, d *Daemon, launcher string) (status int, done bool) {
	conn, err := d.Dial()
	if err != nil {
		return 0, false
	}
	interrupted := make(chan os.Signal, 4)
	signal.Notify(interrupted, interrupts...)
	if err := conn.stream("POST", "/v1/vms", wire.JSON(c.request(os.Getenv))); err != nil {
		_ = conn.Close()
		signal.Stop(interrupted)
		return 0, false
	}
	made := d.make(conn, c.Image, interrupted)
	if made.end != nil {
		_ = conn.Close()
		return made.end(launcher)
	}
	held := &hold{d: d, id: made.vm.ID, launcher: launcher, conn: conn}
	go held.keep()
	status, done = d.runIn(c, made.vm, launcher, interrupted)
	err = d.remove(made.vm.ID, launcher)
	held.release()
	if err != nil {
		status = reportError(err)
	}
	return status, done
}

// making is what became of a VM that was asked for.
type making struct {
	vm *VM
	// end is nil once the VM runs; else it leaves nothing of it, and gives what Run does.
	end func(launcher string) (status int, done bool)
}

// make follows the making of a VM of an image.
func (d *Daemon) make(conn *Conn, image string, interrupted <-chan os.Signal) making {
	view := &progressLine{terminal: isTerminal(2)}
	type outcome struct {
		result json.RawMessage
		err    error
	}
	ended := make(chan outcome, 1)
	said := make(chan line)
	gone := make(chan struct{})
	defer close(gone)
	go func() {
		result, err := conn.lines(func(l line) {
			select {
			case said <- l:
			case <-gone:
			}
		})
		ended <- outcome{result, err}
	}()
	id := ""
	leave := func(status int, done bool) making {
		view.clear()
		go exitAtNext(interrupted)
		return making{end: func(launcher string) (int, bool) {
			if id == "" {
				return status, done
			}
			if err := d.remove(id, launcher); err != nil {
				return reportError(err), true
			}
			return status, done
		}}
	}
	for {
		select {
		case l := <-said:
			if l.Event == "vm" {
				id = l.ID
			}
			if l.Event == "progress" && !view.show(l.Progress) {
				return leave(0, false)
			}
		case s := <-interrupted:
			return leave(128+int(s.(syscall.Signal)), true)
		case o := <-ended:
			vm := &VM{}
			var info *wire.ErrorInfo
			switch {
			case errors.As(o.err, &info):
				id = ""
				view.clear()
				return leave(report(d.ofVM(info, image)), true)
			case o.err != nil, json.Unmarshal(o.result, vm) != nil, vm.ID == "":
				// The daemon is gone: the next one removes what there was, and the other client asks it.
				id = ""
				return leave(0, false)
			}
			view.clear()
			return making{vm: vm}
		}
	}
}

// ofVM is the error of an image that is not there; where it is the name of a VM, with the command for those.
func (d *Daemon) ofVM(info *wire.ErrorInfo, image string) *wire.ErrorInfo {
	if !strings.HasPrefix(info.Code, "ERR_IMAGE_") || strings.ContainsAny(image, "/:@") {
		return info
	}
	conn, err := d.Dial()
	if err != nil {
		return info
	}
	defer conn.Close()
	// No such VM, mostly: then it was meant as an image.
	if _, err := conn.View(image); err != nil {
		return info
	}
	told := *info
	told.Fix = image + " is a VM: vmsan exec " + image + " COMMAND"
	return &told
}

// exitAtNext ends this process at the next interrupt: the daemon does the rest.
func exitAtNext(interrupted <-chan os.Signal) {
	os.Exit(128 + int((<-interrupted).(syscall.Signal)))
}

// runIn runs the command in the VM; signals are the command's from then on.
func (d *Daemon) runIn(c *RunCommand, vm *VM, launcher string, interrupted chan os.Signal) (status int, done bool) {
	line := commandLine(vm, c.Argv)
	if len(line) == 0 {
		signal.Stop(interrupted)
		return 0, false
	}
	inputIsTerminal := isTerminal(0)
	withInput := !inputIsTerminal || c.Interactive || c.TTY
	own := Command{Argv: line, TimeoutMs: c.TimeoutMs, TTY: c.TTY}
	session := NewSession(SpecOf(&own, vm, withInput), d.opener("/v1/vms/"+vm.ID, launcher), os.Stdout, os.Stderr)
	session.KeepsFailure = true
	restore := join(session, withInput, c.TTY && inputIsTerminal)
	signal.Stop(interrupted)
	select {
	case s := <-interrupted:
		// It came before there was a command.
		restore()
		return 128 + int(s.(syscall.Signal)), true
	default:
	}
	exit, err := session.Run(nil)
	restore()
	if exit == nil {
		return failed(session, err)
	}
	return statusAfterLoss(ended(exit, d.timeLimitPassed(vm)), session.out[0].failure(), session.out[1].failure()), true
}

// commandLine is the image's entrypoint, then the user's words or its own.
func commandLine(vm *VM, words []string) []string {
	if vm.Image == nil {
		return words
	}
	config := vm.Image.Config
	if len(words) == 0 {
		words = config.Cmd
	}
	return append(append([]string{}, config.Entrypoint...), words...)
}
