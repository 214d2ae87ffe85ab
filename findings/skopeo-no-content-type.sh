#!/bin/sh
# Which: skopeo 1.9.3 (Debian 12, 1.9.3+ds1-1+b10).
# Does: a registry sends an OCI manifest, `mediaType` in the document, without a Content-Type header. `inspect --raw`
#   shows the document; `copy` does not look at what it says of itself: without the header it is taken for Docker's
#   schema 1.
# Seen: with the header status 0; without it 1 and "unsupported schema version 2".
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 \
  libassuan0=2.5.5-5 libdevmapper1.02.1=2:1.02.185-2
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/bin:$PATH
LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu
export PATH LD_LIBRARY_PATH

cat >registry.py <<'END'
"""One image without layers, as typed/image with a Content-Type and as bare/image without."""
import hashlib, http.server, json

config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
digest = "sha256:" + hashlib.sha256(config).hexdigest()
TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)}
manifest = json.dumps({"schemaVersion": 2, "mediaType": TYPE, "config": CONFIG, "layers": []}).encode()


class Registry(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        found = "/manifests/" in self.path
        body = manifest if found else config if "/blobs/" in self.path else b"{}"
        self.send_response(200)
        if found and "/typed/" in self.path:
            self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
END
mkfifo ready
python3 registry.py >ready &
server=$!
read -r port <ready

skopeo --version
# copy NAME EXPECTED-STATUS
copy() {
  image=docker://127.0.0.1:$port/$1/image:1
  skopeo --insecure-policy inspect --raw --tls-verify=false "$image" | grep -q '"mediaType"'
  status=0
  skopeo --insecure-policy copy -q --src-tls-verify=false "$image" "oci:$1:1" 2>said || status=$?
  echo "$1: status $status $(cat said)"
  [ "$status" = "$2" ] || { echo "changed: it was $2" >&2 && exit 1; }
}
copy typed 0
copy bare 1
grep -q "unsupported schema version 2" said || { echo "changed: the reason" >&2 && exit 1; }
