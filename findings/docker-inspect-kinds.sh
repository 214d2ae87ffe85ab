#!/bin/sh
# Which: docker's command line 20.10.24 (Debian 12, docker.io 20.10.24+dfsg1-1+deb12u1+b6).
# Does: `docker inspect NAME` asks for a container of that name, then for an image, a network, a volume, a plugin, and goes on for 404 only. An
#   engine that answers 400 for `team/app:1`, which no container can be called, hides its image of that name; one that has no
#   plugins and says so (501) turns "No such object", which scripts look for, into its own words, for every name there is not.
# Seen: as said: the image by 404 and not by 400; "No such object" by 404, "no plugins here" by 501.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download docker.io=20.10.24+dfsg1-1+deb12u1+b6
dpkg-deb -x docker.io_*.deb root
cat >engine.py <<'END'
"""An engine with one image. The file "status" says how it answers for a container and for a plugin that it does not have."""
import http.server, socketserver

class Engine(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        with open("status") as source:
            container, plugin = map(int, source.read().split())
        kind = self.path.split("/")[2] if self.path.startswith("/v1") else "ping"
        status, body = 404, b'{"message":"not found"}'
        if kind == "ping":
            status, body = 200, b"OK"
        elif kind == "info":
            status, body = 200, b'{"Swarm":{"LocalNodeState":"inactive"}}'
        elif self.path.endswith("/images/team/app:1/json"):
            status, body = 200, b'{"Id":"sha256:abc"}'
        elif kind == "containers":
            status, body = container, b'{"message":"not a name of a container"}'
        elif kind == "plugins":
            status, body = plugin, b'{"message":"no plugins here"}'
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("client", 0)

Server("engine.sock", Engine).serve_forever()
END
echo 404 404 >status
python3 engine.py &
server=$!
while [ ! -S engine.sock ]; do sleep 0.1; done
export DOCKER_HOST="unix://$dir/engine.sock" HOME="$dir"
root/usr/bin/docker --version

# inspect CONTAINER-STATUS PLUGIN-STATUS NAME EXPECTED
inspect() {
  echo "$1 $2" >status
  seen=$(root/usr/bin/docker inspect -f '{{.Id}}' "$3" 2>&1 || true)
  seen=$(echo "$seen" | sed '/^$/d')
  echo "containers $1, plugins $2, inspect $3: $seen"
  [ "$seen" = "$4" ] || { echo "changed: it was $4" >&2 && exit 1; }
}
inspect 404 404 team/app:1 "sha256:abc"
inspect 400 404 team/app:1 "Error response from daemon: not a name of a container"
inspect 404 404 nothing "Error: No such object: nothing"
inspect 404 501 nothing "Error response from daemon: no plugins here"
