package api

import (
	"bufio"
	"errors"
	"io"
	"net/http"

	"vmsan/guest/internal/proc"
	"vmsan/guest/internal/stream"
	"vmsan/guest/internal/wire"
)

// frameWriter is a response as stream.Writer.
type frameWriter struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (f frameWriter) Write(p []byte) (int, error) { return f.w.Write(p) }
func (f frameWriter) Flush() error                { return f.c.Flush() }

// begin answers with headers at once; everything later is a frame.
func begin(w http.ResponseWriter, r *http.Request) (*wire.Reader, frameWriter, bool) {
	w.Header().Set("content-type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	f := frameWriter{w, http.NewResponseController(w)}
	return wire.NewReader(bufio.NewReaderSize(r.Body, 32<<10)), f, f.Flush() == nil
}

func fail(f frameWriter, err error) {
	// A failing write means that the client is gone.
	_, _ = f.Write(wire.AppendRaw(nil, wire.Fail, wire.JSON(wire.AsInfo(err, wire.CodeInternal, "The agent failed."))))
	_ = f.Flush() // as above
}

// first reads the frame that opens a request.
func first(in *wire.Reader, want wire.Type) ([]byte, error) {
	f, err := in.Next()
	var info *wire.ErrorInfo
	switch {
	case errors.As(err, &info):
		return nil, info
	case errors.Is(err, io.EOF):
		return nil, wire.Errorf(wire.CodeRequest, "The request ended before its first frame.")
	case err != nil:
		return nil, err
	case f.Type != want:
		return nil, wire.Errorf(wire.CodeRequest, "The request begins with %s instead of %s.", f.Type, want)
	}
	return f.Payload, nil
}

// openStream starts a stream, or attaches to the one that START names.
func (s *Server) openStream(w http.ResponseWriter, r *http.Request) {
	in, out, ok := begin(w, r)
	if !ok {
		return
	}
	c, created, err := s.start(in)
	if err != nil {
		fail(out, err)
		return
	}
	in.Release()
	c.Run(r.Context(), created, in, out)
}

func (s *Server) start(in *wire.Reader) (*stream.Client, bool, error) {
	payload, err := first(in, wire.Start)
	if err != nil {
		return nil, false, err
	}
	spec, err := wire.ParseSpec(payload)
	if err != nil {
		return nil, false, err
	}
	st, created, err := s.streams.Start(spec)
	if err != nil {
		return nil, false, err
	}
	c, err := st.AttachNew(spec.Client)
	return c, created, err
}

// attachStream attaches again.
func (s *Server) attachStream(w http.ResponseWriter, r *http.Request) {
	in, out, ok := begin(w, r)
	if !ok {
		return
	}
	c, err := s.attach(in, r.PathValue("id"))
	if err != nil {
		fail(out, err)
		return
	}
	c.Run(r.Context(), false, in, out)
}

func (s *Server) attach(in *wire.Reader, id string) (*stream.Client, error) {
	payload, err := first(in, wire.Attach)
	if err != nil {
		return nil, err
	}
	req, err := wire.ParseAttach(payload)
	if err != nil {
		return nil, err
	}
	st, err := s.streams.Get(id)
	if err != nil {
		return nil, err
	}
	return st.AttachAt(req)
}

func (s *Server) listStreams(w http.ResponseWriter, _ *http.Request) {
	infos := []wire.StreamInfo{}
	for _, st := range s.streams.List() {
		infos = append(infos, st.Info())
	}
	writeJSON(w, map[string]any{"streams": infos})
}

// withStream finds the stream of the request or answers that there is none.
func (s *Server) withStream(w http.ResponseWriter, r *http.Request) *stream.Stream {
	st, err := s.streams.Get(r.PathValue("id"))
	if err != nil {
		writeError(w, statusOf(err), err)
		return nil
	}
	return st
}

func (s *Server) getStream(w http.ResponseWriter, r *http.Request) {
	if st := s.withStream(w, r); st != nil {
		writeJSON(w, st.Info())
	}
}

func (s *Server) waitStream(w http.ResponseWriter, r *http.Request) {
	st := s.withStream(w, r)
	if st == nil {
		return
	}
	select {
	case <-st.Done():
		writeJSON(w, st.Info())
	case <-r.Context().Done():
	}
}

func (s *Server) signalStream(w http.ResponseWriter, r *http.Request) {
	st := s.withStream(w, r)
	if st == nil {
		return
	}
	var req struct {
		Signal string `json:"signal"`
		Tree   bool   `json:"tree"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	sig, ok := proc.ParseSignal(req.Signal)
	if !ok {
		writeError(w, http.StatusBadRequest, wire.Errorf(wire.CodeRequest, "There is no signal %.32q.", req.Signal))
		return
	}
	if err := st.Signal(sig, req.Tree); err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) deleteStream(w http.ResponseWriter, r *http.Request) {
	if err := s.streams.Delete(r.PathValue("id")); err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
