#!/bin/sh
# Which: docker's command line 20.10.24 (Debian 12, docker.io 20.10.24+dfsg1-1+deb12u1+b6), without buildx.
# Does: `docker build -f` with a Dockerfile from outside of the context adds it and a .dockerignore to the archive that it
#   sends, and ends right behind the last one's content: neither padding to a block nor the two blocks of zeros that
#   pax(1) demands. With a Dockerfile of the context both are there.
# Seen: GNU tar 1.34 refuses the second archive ("Unexpected EOF in archive"); Docker's engine, which reads with Go, takes it.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download docker.io=20.10.24+dfsg1-1+deb12u1+b6
dpkg-deb -x docker.io_*.deb root
cat >engine.py <<'END'
"""An engine that keeps the context of a build."""
import http.server, socketserver

class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def answer(self, text):
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def do_HEAD(self):
        self.answer(b"{}")

    def do_GET(self):
        self.answer(b"{}")

    def do_POST(self):
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline(), 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with open("context.tar", "wb") as out:
            out.write(body)
        self.answer(b'{"stream":"done"}\n')

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("client", 0)

Server("engine.sock", Engine).serve_forever()
END
python3 engine.py &
server=$!
while [ ! -S engine.sock ]; do sleep 0.1; done
export DOCKER_HOST="unix://$dir/engine.sock" HOME="$dir" DOCKER_BUILDKIT=0
root/usr/bin/docker --version
mkdir context
echo 'FROM scratch' | tee context/Dockerfile >Dockerfile
# end WORD: what the archive ends with, and what GNU tar says of it
end() {
  tar -tf context.tar >names 2>said || true
  sed "s/^/$1: /" said
  echo "$1: $(($(wc -c <context.tar) % 512)) bytes behind the last block"
  if [ "$(tail -c 1024 context.tar | tr -d '\0' | wc -c)" = 0 ]; then echo "$1: end mark"; else echo "$1: no end mark"; fi
}
{
  root/usr/bin/docker build -q context >/dev/null 2>&1
  end inside
  root/usr/bin/docker build -q -f Dockerfile context >/dev/null 2>&1
  end outside
} >seen
cat seen
diff - seen <<'END' || { echo "changed" >&2 && exit 1; }
inside: 0 bytes behind the last block
inside: end mark
outside: tar: Unexpected EOF in archive
outside: tar: Error is not recoverable: exiting now
outside: 47 bytes behind the last block
outside: no end mark
END
