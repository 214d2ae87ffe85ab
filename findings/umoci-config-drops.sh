#!/bin/sh
# Which: umoci 0.4.7 (Debian 12, 0.4.7+ds-3+b7).
# Does: BuildKit writes Healthcheck, Shell and OnBuild into the configuration of OCI images, too, and Docker heeds them
#   there, though they stand in Docker's specification alone. Whoever adds a label with `umoci config` gets an image without
#   them: it reads the configuration into the fields that it knows and writes these. An image without a date gets one of the year 1.
#   `umoci tag` leaves all as it is. It says nothing and ends with status 0.
# Seen: before "Env Healthcheck OnBuild Shell", after a label "Env Labels", created 0001-01-01T00:00:00Z.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download umoci=0.4.7+ds-3+b7
dpkg-deb -x umoci_*.deb root
PATH=$dir/root/usr/bin:$PATH

cat >image.py <<'END'
"""Without arguments, writes an image that has no layers; else says which fields the configuration of the image of that name has."""
import hashlib, json, os, sys

REF = "org.opencontainers.image.ref.name"

def put(document, media):
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    with open("image/blobs/sha256/" + digest, "wb") as out:
        out.write(data)
    return {"mediaType": "application/vnd.oci.image." + media, "digest": "sha256:" + digest, "size": len(data)}

def get(descriptor):
    with open("image/blobs/sha256/" + descriptor["digest"].split(":")[1]) as source:
        return json.load(source)

if len(sys.argv) > 1:
    with open("image/index.json") as source:
        entry = next(entry for entry in json.load(source)["manifests"] if entry["annotations"][REF] == sys.argv[1])
    document = get(get(entry)["config"])
    print(*sorted(document["config"]), document.get("created", "no date"))
    sys.exit()
os.makedirs("image/blobs/sha256")
fields = {"Env": ["A=1"], "Healthcheck": {"Test": ["CMD", "check"]}, "Shell": ["/bin/bash", "-c"], "OnBuild": ["RUN make"]}
document = {"architecture": "amd64", "os": "linux", "config": fields, "rootfs": {"type": "layers", "diff_ids": []}}
manifest = put({"schemaVersion": 2, "config": put(document, "config.v1+json"), "layers": []}, "manifest.v1+json")
with open("image/index.json", "w") as out:
    json.dump({"schemaVersion": 2, "manifests": [manifest | {"annotations": {REF: "before"}}]}, out)
with open("image/oci-layout", "w") as out:
    out.write('{"imageLayoutVersion":"1.0.0"}')
END
python3 image.py

umoci --version
umoci tag --image image:before tagged
umoci config --image image:before --tag labelled --config.label a=b
for name in before tagged labelled; do
  echo "$name: $(python3 image.py $name)"
done | tee seen
cat >expected <<'END'
before: Env Healthcheck OnBuild Shell no date
tagged: Env Healthcheck OnBuild Shell no date
labelled: Env Labels 0001-01-01T00:00:00Z
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
