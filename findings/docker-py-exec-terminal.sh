#!/bin/sh
# Which: Python's package docker 7.2.0.
# Does: `exec_create(…, tty=True)` and `exec_start(id)`: the second call asks for no terminal unless it is told once more, and takes
#   the first eight bytes of what comes for a header. Docker's engine goes by the second request as well, and sends headers for a
#   command with a terminal; an engine that goes by the command sends what the terminal shows, of which eight bytes are lost.
#   What comes in one piece with the answer is lost as well, headers or not: it is in a buffer that nobody reads.
#   The same client names the keys that leave a terminal `detachKeys` where Docker's documents say `DetachKeys`: an engine that is
#   not written in Go, whose JSON ignores letters' case, does not see them.
# Seen: "hello from a terminal" with headers, a second after the answer; without headers, or at once, less of it or nothing; the key.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m pip -q --disable-pip-version-check install --target python docker==7.2.0 2>/dev/null
cat >engine.py <<'END'
"""An engine with one command, whose terminal shows a line: without headers for the ID `plain`, at once behind the answer for `at-once`."""
import http.server, json, socketserver, time

LINE = b"hello from a terminal"

class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words):
        pass
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("asked", "a") as out:
            out.write(json.dumps(body) + "\n")
        if not self.path.endswith("/start"):
            answer = json.dumps({"Id": "plain"}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        head = b"" if "/plain/" in self.path else b"\1\0\0\0" + len(LINE).to_bytes(4, "big")
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        if "/at-once/" not in self.path:
            time.sleep(1)
        self.wfile.write(head + LINE)
        self.close_connection = True

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass

Engine.address_string = lambda self: "local"
Server("engine.sock", Engine).serve_forever()
END
python3 engine.py 2>errors &
server=$!
while [ ! -S engine.sock ]; do sleep 0.1; done
cat >client.py <<'END'
import os
import docker

client = docker.APIClient(f"unix://{os.getcwd()}/engine.sock", version="1.47")
client._general_configs["detachKeys"] = "ctrl-a"
client.exec_create("c", "true", tty=True)
for which in ("plain", "headers", "at-once"):
    print(which, client.exec_start(which))
END
PYTHONPATH=python python3 client.py | tee seen
grep detachKeys asked
grep -q '"detachKeys": "ctrl-a"' asked || { echo "changed" >&2 && exit 1; }
grep -q '^headers .*hello from a terminal' seen || { echo "changed" >&2 && exit 1; }
! grep -q '^plain .*hello' seen || { echo "changed" >&2 && exit 1; }
