#!/bin/sh
# Which: crane 0.20.2 (github.com/google/go-containerregistry, built from its Go module), against umoci 0.4.7 (Debian 12).
# Does: `crane export` (so does what is built on the same function: `crane flatten`, mutate.Extract) knows the whiteouts of OCI layers
#   for single names, not the opaque one (`.wh..wh..opq`), by which a layer says that nothing below counts in a directory: the files of
#   the lower layer come back.
# Seen: crane's tree has dir/old beside dir/new; umoci's has dir/new alone. A whiteout of a name is heeded by both.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
GOBIN=$dir/bin GOPATH=$dir/go GOFLAGS=-modcacherw \
  go install github.com/google/go-containerregistry/cmd/crane@v0.20.2 2>/dev/null
apt-get -o APT::Sandbox::User= -qq download umoci=0.4.7+ds-3+b7
dpkg-deb -x umoci_*.deb root
PATH=$dir/bin:$dir/root/usr/bin:$PATH

mkdir -p one/dir two/dir
touch one/dir/old one/gone one/keep two/dir/new two/dir/.wh..wh..opq two/.wh.gone
tar -C one --owner=0 --group=0 -cf one.tar dir gone keep
tar -C two --owner=0 --group=0 -cf two.tar dir .wh.gone
cat >image.py <<'END'
"""The two layers as one image: an OCI layout for umoci, an archive in docker's form for crane."""
import hashlib, json, os, tarfile

os.makedirs("layout/blobs/sha256")

def put(data, media):
    digest = hashlib.sha256(data).hexdigest()
    with open("layout/blobs/sha256/" + digest, "wb") as out:
        out.write(data)
    return {"mediaType": "application/vnd.oci.image." + media, "digest": "sha256:" + digest, "size": len(data)}

layers = [put(open(name, "rb").read(), "layer.v1.tar") for name in ("one.tar", "two.tar")]
document = {"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
config = put(json.dumps(document).encode(), "config.v1+json")
manifest = put(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode(), "manifest.v1+json")
manifest["annotations"] = {"org.opencontainers.image.ref.name": "1"}
with open("layout/index.json", "w") as out:
    json.dump({"schemaVersion": 2, "manifests": [manifest]}, out)
with open("layout/oci-layout", "w") as out:
    out.write('{"imageLayoutVersion":"1.0.0"}')
with open("config.json", "w") as out:
    json.dump(document, out)
with open("manifest.json", "w") as out:
    json.dump([{"Config": "config.json", "RepoTags": ["image:1"], "Layers": ["one.tar", "two.tar"]}], out)
with tarfile.open("image.tar", "w") as out:
    for name in ("manifest.json", "config.json", "one.tar", "two.tar"):
        out.add(name)
END
python3 image.py

crane version
umoci --version
crane=$(crane export - - <image.tar | tar -tf - | sed 's,/$,,' | sort | tr '\n' ' ')
umoci unpack --rootless --image layout:1 bundle
umoci=$(cd bundle/rootfs && find . -mindepth 1 -printf '%P\n' | sort | tr '\n' ' ')
echo "crane: $crane"
echo "umoci: $umoci"
[ "$crane" = "dir dir/new dir/old keep " ] || { echo "changed" >&2 && exit 1; }
[ "$umoci" = "dir dir/new keep " ] || { echo "changed" >&2 && exit 1; }
