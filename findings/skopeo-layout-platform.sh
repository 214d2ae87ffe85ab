#!/bin/sh
# Which: skopeo 1.9.3 (Debian 12, 1.9.3+ds1-1+b10).
# Does: the index.json of an OCI layout has two manifests of one name, for arm64 and for amd64, each with its `platform`; the specification
#   leaves open how often a name may be there. skopeo takes the first, whatever it is for, even when it is asked for the other
#   architecture in so many words (`--override-arch`). When the same two stand in an index of their own, one step further, it
#   chooses by the platform.
# Seen: of index.json arm64 for both, and with the entries the other way round amd64 for both; of the nested index what was asked for.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 \
  libassuan0=2.5.5-5 libdevmapper1.02.1=2:1.02.185-2
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/bin:$PATH
LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu
export PATH LD_LIBRARY_PATH

cat >layouts.py <<'END'
"""One image for two architectures in three layouts: arm64 first, amd64 first, and in an index of its own."""
import hashlib, json, os

MEDIA = "application/vnd.oci.image."
NAME = {"annotations": {"org.opencontainers.image.ref.name": "1"}}

def put(layout, document, media):
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    with open(layout + "/blobs/sha256/" + digest, "wb") as out:
        out.write(data)
    return {"mediaType": MEDIA + media, "digest": "sha256:" + digest, "size": len(data)}

for layout in ("arm64-first", "amd64-first", "nested"):
    os.makedirs(layout + "/blobs/sha256")
    entries = []
    for architecture in sorted(("arm64", "amd64"), reverse=layout != "amd64-first"):
        document = {"architecture": architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
        config = put(layout, document, "config.v1+json")
        entry = put(layout, {"schemaVersion": 2, "config": config, "layers": []}, "manifest.v1+json")
        entries.append(entry | {"platform": {"architecture": architecture, "os": "linux"}})
    if layout == "nested":
        entries = [put(layout, {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": entries}, "index.v1+json")]
    with open(layout + "/index.json", "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [entry | NAME for entry in entries]}, out)
    with open(layout + "/oci-layout", "w") as out:
        out.write('{"imageLayoutVersion":"1.0.0"}')
END
python3 layouts.py

skopeo --version
for layout in arm64-first amd64-first nested; do
  for asked in arm64 amd64; do
    skopeo --override-os linux --override-arch $asked inspect --config "oci:$layout:1" >config
    echo "$layout, asked for $asked: $(sed -n 's/.*"architecture": *"\([^"]*\)".*/\1/p' config)"
  done
done | tee seen
cat >expected <<'END'
arm64-first, asked for arm64: arm64
arm64-first, asked for amd64: arm64
amd64-first, asked for arm64: amd64
amd64-first, asked for amd64: amd64
nested, asked for arm64: arm64
nested, asked for amd64: amd64
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
