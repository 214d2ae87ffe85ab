package api

import (
	"bufio"
	"encoding/base64"
	"errors"
	"math"
	"net/http"
	"syscall"

	"vmsan/guest/internal/files"
	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/wire"
)

// fsRequest is the body of every POST /v1/fs/… call.
type fsRequest struct {
	Path      wire.Text `json:"path"`
	User      wire.Text `json:"user"`
	Override  bool      `json:"override"`
	Follow    bool      `json:"follow"`
	Recursive bool      `json:"recursive"`
	Parents   bool      `json:"parents"`
	Mode      *uint32   `json:"mode"`
	UID       *uint32   `json:"uid"`
	GID       *uint32   `json:"gid"`
	From      wire.Text `json:"from"`
	To        wire.Text `json:"to"`
	Overwrite bool      `json:"overwrite"`
	// Limit is the most bytes of a file that is read.
	Limit int64 `json:"limit"`
	// Depth of a list; 0: all of it when recursive, else 1.
	Depth int `json:"depth"`
	// Attributes is the prefix of extended attributes to tell.
	Attributes string `json:"attributes"`
}

// onFiles makes a handler of an operation that is done with the user's rights.
func (s *Server) onFiles(do func(w http.ResponseWriter, r *fsRequest) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req fsRequest
		if !readJSON(w, r, &req) {
			return
		}
		user, err := proc.LookupUser(s.opts.Host.Etc, string(req.User))
		if err == nil {
			err = files.As(user, req.Override, func() error { return do(w, &req) })
		}
		if errors.Is(err, errCut) {
			// The reply has begun: cut it off, so that nobody takes it for complete.
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			writeError(w, fileStatus(err), err)
		}
	}
}

// errCut says that an operation failed in the middle of its reply.
var errCut = errors.New("failed in the middle of the reply")

// fileStatus chooses the status by the errno behind a file error.
func fileStatus(err error) int {
	var info *wire.ErrorInfo
	if errors.As(err, &info) && info.Code == wire.CodeFile {
		switch info.Errno {
		case syscall.ENOENT, syscall.ENOTDIR:
			return http.StatusNotFound
		case syscall.EEXIST, syscall.ENOTEMPTY:
			return http.StatusConflict
		}
	}
	return statusOf(err)
}

func (s *Server) fsRoutes(m *http.ServeMux) {
	done := func(w http.ResponseWriter, err error) error {
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	}
	m.HandleFunc("POST /v1/fs/stat", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		e, err := files.Stat(string(r.Path), r.Follow, r.Attributes)
		if err == nil {
			writeJSON(w, e)
		}
		return err
	}))
	m.HandleFunc("POST /v1/fs/list", s.onFiles(list))
	m.HandleFunc("POST /v1/fs/read", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		content, err := files.ReadSmall(string(r.Path), r.Limit)
		if err == nil {
			writeJSON(w, map[string]string{"content": base64.StdEncoding.EncodeToString(content)})
		}
		return err
	}))
	m.HandleFunc("POST /v1/fs/mkdir", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		mode := uint32(0o755)
		if r.Mode != nil {
			mode = *r.Mode
		}
		return done(w, files.Mkdir(string(r.Path), r.Parents, mode))
	}))
	m.HandleFunc("POST /v1/fs/change", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		return done(w, files.Change(string(r.Path), r.UID, r.GID, r.Mode))
	}))
	m.HandleFunc("POST /v1/fs/sync", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		return done(w, files.Sync(string(r.Path)))
	}))
	m.HandleFunc("POST /v1/fs/move", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		return done(w, files.Move(string(r.From), string(r.To), r.Overwrite))
	}))
	m.HandleFunc("POST /v1/fs/remove", s.onFiles(func(w http.ResponseWriter, r *fsRequest) error {
		return done(w, files.Remove(string(r.Path), r.Recursive))
	}))
}

// list streams entries; the headers go out with the first one, so that an error before it still has a status.
func list(w http.ResponseWriter, r *fsRequest) error {
	out := bufio.NewWriterSize(w, 64<<10)
	w.Header().Set("content-type", "application/x-ndjson")
	begun := false
	o := files.ListOptions{Depth: r.Depth, Attributes: r.Attributes}
	switch {
	case !r.Recursive:
		o.Depth = 1
	case r.Depth <= 0:
		o.Depth = math.MaxInt
	}
	err := files.List(string(r.Path), o, func(e *files.Entry) error {
		begun = true
		if _, err := out.Write(wire.JSON(e)); err != nil {
			return err
		}
		return out.WriteByte('\n')
	})
	if err != nil && !begun {
		return err
	}
	if err != nil {
		return errCut
	}
	return out.Flush()
}
