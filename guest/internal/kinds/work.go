package kinds

import (
	"errors"
	"sync"
	"syscall"

	"vmsan/guest/internal/files"
	"vmsan/guest/internal/netcfg"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// errPartial ends work with status 1 whose details are on its error output.
var errPartial = errors.New("some entries could not be read")

// work is the Job of every kind that is no process: any signal ends it.
type work struct {
	s      *stream.Stream
	mu     sync.Mutex
	signal syscall.Signal
	stop   []func()
}

// onStop has f called when the work is to end; at once if it is to end already.
func (w *work) onStop(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.signal != 0 {
		f()
		return
	}
	w.stop = append(w.stop, f)
}

// Signal implements stream.Job.
func (w *work) Signal(sig syscall.Signal, _ bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.signal != 0 {
		return nil
	}
	w.signal = sig
	for _, f := range w.stop {
		f()
	}
	w.s.Abort()
	return nil
}

// Resize implements stream.Job.
func (w *work) Resize(uint16, uint16) error { return nil }

// begin runs f as the work of s.
func begin(s *stream.Stream, f func(*work) error) *work {
	w := &work{s: s}
	go func() {
		err := f(w)
		w.mu.Lock()
		sig := w.signal
		w.mu.Unlock()
		switch {
		case sig != 0:
			s.Finish(wire.Exit{ExitCode: 128 + int(sig), Signal: proc.SignalName(sig)})
		case errors.Is(err, errPartial):
			s.Finish(wire.Exit{ExitCode: 1})
		case err != nil:
			s.Finish(failed(err, "The %s of %.256q failed.", s.Spec.Kind, s.Spec.Path))
		default:
			s.Finish(wire.Exit{})
		}
	}()
	return w
}

// fileKind makes a Starter of work on files with the rights of the stream's user.
func (h *Host) fileKind(f func(s *stream.Stream) error) stream.Starter {
	return func(s *stream.Stream) (stream.Job, error) {
		user, err := proc.LookupUser(h.Etc, string(s.Spec.User))
		if err != nil {
			return nil, err
		}
		s.SetProcess(0, user.Name)
		return begin(s, func(*work) error {
			err := files.As(user, s.Spec.Override, func() error { return f(s) })
			s.CloseInput()
			return err
		}), nil
	}
}

func untar(s *stream.Stream) error {
	return files.Untar(files.UntarOptions{Path: string(s.Spec.Path), Parents: s.Spec.Parents, Owners: s.Spec.Owners}, s.Input())
}

// fill is kind fill: what is written is root's and shown by mounts, whatever user is named.
func (h *Host) fill(s *stream.Stream) error {
	mode := uint32(0o755)
	if s.Spec.Mode != nil {
		mode = uint32(*s.Spec.Mode)
	}
	f := netcfg.Filling{Place: string(s.Spec.Path), Shape: s.Spec.Shape, Writable: s.Spec.Writable, Mode: mode, GID: s.Spec.GID}
	return h.Fill(f, s.Input())
}

func tarOf(s *stream.Stream) error {
	n, err := files.Tar(string(s.Spec.Path), files.TarOptions{Follow: s.Spec.Follow}, s.Output(stream.Stdout), s.Output(stream.Stderr))
	if err == nil && n > 0 {
		return errPartial
	}
	return err
}

func read(s *stream.Stream) error {
	return files.Read(string(s.Spec.Path), s.Spec.NoFollow, s.Spec.Offset, s.Spec.Length, s.Output(stream.Stdout))
}

func write(s *stream.Stream) error {
	o := files.WriteOptions{Mode: s.Spec.Mode, InPlace: s.Spec.InPlace, Attributes: s.Spec.Attributes}
	return files.Write(string(s.Spec.Path), o, s.Input())
}

// startWatch is kind watch.
func (h *Host) startWatch(s *stream.Stream) (stream.Job, error) {
	user, err := proc.LookupUser(h.Etc, string(s.Spec.User))
	if err != nil {
		return nil, err
	}
	var watcher *files.Watcher
	err = files.As(user, s.Spec.Override, func() (err error) {
		watcher, err = files.NewWatcher(string(s.Spec.Path), s.Spec.Recursive)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.SetProcess(0, user.Name)
	s.CloseInput()
	w := begin(s, func(*work) error {
		defer watcher.Close()
		return files.As(user, s.Spec.Override, func() error { return watcher.Run(s.Output(stream.Stdout)) })
	})
	w.onStop(watcher.Close)
	return w, nil
}
