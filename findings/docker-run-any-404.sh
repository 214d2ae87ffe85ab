#!/bin/sh
# Which: docker's command line 20.10.24 (Debian 12, docker.io 20.10.24+dfsg1-1+deb12u1+b6); 28.2.2 does the same.
# Does: whatever an engine cannot find when it is to make a container (a network, say), `docker run` takes the
#   status 404 for a missing image: it says so, pulls that image, asks again, and only then tells what the engine has said.
# Seen: an engine that has the image and lacks the network is asked twice, with a pull in between.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download docker.io=20.10.24+dfsg1-1+deb12u1+b6
dpkg-deb -x docker.io_*.deb root
cat >engine.py <<'END'
"""An engine that has every image and no network `mine`."""
import http.server, json, socketserver, urllib.parse

class Engine(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def do_HEAD(self):
        self.answer(200, {})

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.urlsplit(self.path).path
        with open("asked", "a") as out:
            out.write(path.split("/", 2)[2] + "\n")
        if path.endswith("/containers/create"):
            self.answer(404, {"message": "network mine not found"})
        else:
            self.answer(200, {"status": "Image is up to date"})

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("client", 0)

Server("engine.sock", Engine).serve_forever()
END
python3 engine.py &
server=$!
while [ ! -S engine.sock ]; do sleep 0.1; done
export DOCKER_HOST="unix://$dir/engine.sock" HOME="$dir"
root/usr/bin/docker --version
: >asked
root/usr/bin/docker run --network mine there:1 true >said 2>&1 || true
cat said asked
grep -q "^Unable to find image 'there:1' locally" said || { echo "changed" >&2 && exit 1; }
grep -q "network mine not found" said || { echo "changed" >&2 && exit 1; }
printf 'containers/create\nimages/create\ncontainers/create\n' | diff - asked || { echo "changed" >&2 && exit 1; }
