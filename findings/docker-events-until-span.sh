#!/bin/sh
# Which: docker's command line 20.10.24 (Debian 12, docker.io 20.10.24+dfsg1-1+deb12u1+b6).
# Does: of a span of time (`docker events --until 0s`) it makes a moment by cutting the second off: "until now" is until
#   this second began, and what has happened since is missing. A moment with a fraction (`--until "$(date +%s.%N)"`)
#   is handed on as it is.
# Seen: for --until 0s the engine is asked for a whole second; for a moment of .250, with its fraction.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download docker.io=20.10.24+dfsg1-1+deb12u1+b6
dpkg-deb -x docker.io_*.deb root
cat >engine.py <<'END'
"""An engine that says which moments it is asked for, and that nothing has happened."""
import http.server, socketserver, urllib.parse

class Engine(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        where = urllib.parse.urlsplit(self.path)
        if where.path.endswith("/events"):
            query = urllib.parse.parse_qs(where.query)
            with open("asked", "a") as out:
                out.write(query["until"][0] + "\n")
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", "0")
        self.end_headers()

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
root/usr/bin/docker events --since 1 --until 0s || true
root/usr/bin/docker events --since 1 --until "$(date +%s).250" || true
cat asked
[ "$(wc -l <asked)" -eq 2 ] || { echo "changed" >&2 && exit 1; }
sed -n 1p asked | grep -Eq '^[0-9]+$' || { echo "changed" >&2 && exit 1; }
sed -n 2p asked | grep -Eq '^[0-9]+\.250' || { echo "changed" >&2 && exit 1; }
