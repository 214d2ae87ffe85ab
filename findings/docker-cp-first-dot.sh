#!/bin/sh
# Which: docker's command line 20.10.24 (Debian 12, docker.io 20.10.24+dfsg1-1+deb12u1+b6).
# Does: for `docker cp c:/dir/. new` it renames what the engine's archive has by replacing the first "." of each name with
#   "new", wherever that is. An engine whose archive calls its entries `./a.txt` is understood; one that calls them
#   `a.txt`, the same files for tar, has the dot of `.txt` replaced.
# Seen: of ./plain.txt and dotted.tar.gz, as the archive calls them, new/plain.txt and dottednewtar.gz are made.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download docker.io=20.10.24+dfsg1-1+deb12u1+b6
dpkg-deb -x docker.io_*.deb root
cat >engine.py <<'END'
"""An engine that has one directory of one container."""
import base64, http.server, io, json, socketserver, tarfile

def archive():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("./plain.txt", "dotted.tar.gz"):
            tar.addfile(tarfile.TarInfo(name))
    return data.getvalue()

STAT = {"name": ".", "size": 4096, "mode": 0o20000000755, "mtime": "2025-01-01T00:00:00Z", "linkTarget": ""}

class Engine(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass
    def answer(self, body=b""):
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("X-Docker-Container-Path-Stat", base64.b64encode(json.dumps(STAT).encode()).decode())
        self.send_header("Content-Type", "application/x-tar")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    def do_HEAD(self):
        self.answer()
    def do_GET(self):
        self.answer(archive() if "/archive" in self.path else b"OK")

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass

Engine.address_string = lambda self: "local"
Server("engine.sock", Engine).serve_forever()
END
python3 engine.py 2>errors &
server=$!
while [ ! -S engine.sock ]; do sleep 0.1; done
export DOCKER_HOST="unix://$dir/engine.sock" HOME="$dir"
root/usr/bin/docker cp c:/dir/. new
seen=$(find . -name '*.txt' -o -name 'dotted*' | sort | tr '\n' ' ')
echo "$seen"
[ "$seen" = "./dottednewtar.gz ./new/plain.txt " ] || { echo "changed" >&2 && exit 1; }
