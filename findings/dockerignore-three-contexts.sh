#!/bin/sh
# Which: docker's command line 20.10.24 (Debian 12, docker.io 20.10.24+dfsg1-1+deb12u1+b6), the Python package docker 7.1.0,
#   @balena/dockerignore 1.0.2 of npm (what dockerode and testcontainers for Node.js read the file with).
# Does: one directory with one .dockerignore becomes three contexts. The rules are those of Go's filepath.Match; the two
#   libraries ignore case (`*.md` leaves README.MD out), and the Python one takes `[^a]` for the letters "^" and "a", and for
#   "not a" `[!a]`. What `!**/keep` brings back behind `*` in a directory, that of npm alone brings back: the other two have not
#   gone into the directory.
# Seen: the table that is printed: per pattern, which of the files each of the three keeps.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download docker.io=20.10.24+dfsg1-1+deb12u1+b6
dpkg-deb -x docker.io_*.deb root
python3 -m pip -q --disable-pip-version-check install --target python docker==7.1.0 2>/dev/null
npm install --silent --no-audit --no-fund --prefix js @balena/dockerignore@1.0.2 >/dev/null

cat >engine.py <<'END'
"""An engine that writes down which files a build's context has."""
import http.server, io, socketserver, tarfile

class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def answer(self, body):
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.answer(b"{}")

    def do_GET(self):
        self.answer(b'{"ApiVersion":"1.41","MinAPIVersion":"1.12"}')

    def do_POST(self):
        data = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline(), 16)
                data += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/build" in self.path:
            with tarfile.open(fileobj=io.BytesIO(data)) as context, open("context", "w") as out:
                out.write("\n".join(member.name for member in context if member.isfile()))
        self.answer(b'{"stream":"Successfully built 0123456789ab\\n"}\n')

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("client", 0)

Server("engine.sock", Engine).serve_forever()
END
cat >compare.py <<'END'
import os, subprocess, sys
import docker

EXPECTED = {
    "*.md": ("README.MD a.log b.log sub/keep", "a.log b.log sub/keep", "a.log b.log sub/keep"),
    "[^a]*.log": ("README.MD a.log page.md sub/keep", "README.MD b.log page.md sub/keep", "README.MD a.log page.md sub/keep"),
    "[!a]*.log": ("README.MD b.log page.md sub/keep", "README.MD a.log page.md sub/keep", "README.MD b.log page.md sub/keep"),
    "*\n!**/keep": ("", "", "sub/keep"),
}
SCRIPT = """
const ignore = require("./js/node_modules/@balena/dockerignore")().add(process.argv[1]);
console.log(["README.MD", "page.md", "a.log", "b.log", "sub/keep"].filter((name) => !ignore.ignores(name)).join("\\n"));
"""
OWN = {"Dockerfile", ".dockerignore"}

def context():
    with open("context") as source:
        names = source.read().split("\n")
    os.unlink("context")
    return names

def words(names):
    return " ".join(sorted(name for name in names if name and name not in OWN and not name.startswith(".dockerfile")))

os.makedirs("tree/sub")
for name in ("Dockerfile", "README.MD", "page.md", "a.log", "b.log", "sub/keep"):
    with open("tree/" + name, "w") as out:
        out.write("FROM scratch\n")
client = docker.APIClient(base_url="unix://" + os.getcwd() + "/engine.sock", version="1.41")
for pattern, expected in EXPECTED.items():
    with open("tree/.dockerignore", "w") as out:
        out.write(pattern)
    subprocess.run(["root/usr/bin/docker", "build", "-q", "tree"], check=True, stdout=subprocess.DEVNULL)
    cli = words(context())
    list(client.build(path="tree", decode=True))
    python = words(context())
    js = words(subprocess.run(["node", "-e", SCRIPT, pattern], check=True, capture_output=True, text=True).stdout.split("\n"))
    print(repr(pattern), "docker:", cli, "| Python:", python, "| npm:", js, sep="  ")
    if (cli, python, js) != expected:
        sys.exit("changed")
END
python3 engine.py &
server=$!
while [ ! -S engine.sock ]; do sleep 0.1; done
export DOCKER_HOST="unix://$dir/engine.sock" DOCKER_BUILDKIT=0 HOME="$dir" PYTHONPATH="$dir/python" PYTHONWARNINGS=ignore
root/usr/bin/docker --version
python3 compare.py
