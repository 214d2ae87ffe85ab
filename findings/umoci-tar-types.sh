#!/bin/sh
# Which: umoci 0.4.7 (Debian 12, 0.4.7+ds-3+b7), against GNU tar 1.34 (1.34+dfsg-1.2+deb12u1) and BusyBox 1.35 (1:1.35.0-4+deb12u1+b1).
# Does: two kinds of entry of POSIX's tar stop it: the global header (type g), which `git archive` puts before every archive of a commit, and
#   the contiguous file (type 7), which is unpacked as a regular one where there is no such thing. Go's reader, on which umoci is
#   built, hands both on; umoci knows neither and unpacks nothing of the image. So what `git archive` writes is a layer, but not for it.
# Seen: GNU tar and BusyBox unpack both; umoci ends with 1 and "unknown typeflag '\x67'", "unknown typeflag '\x37'".
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download umoci=0.4.7+ds-3+b7 tar=1.34+dfsg-1.2+deb12u1 busybox-static=1:1.35.0-4+deb12u1+b1
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/bin:$dir/root/bin:$PATH

git init -q repository
echo text >repository/file
git -C repository add file
git -C repository -c user.name=name -c user.email=name@host commit -qm one
git -C repository archive -o "$dir/git.tar" HEAD
cat >image.py <<'END'
"""Writes contiguous.tar, and of each of the two archives an image of one layer."""
import hashlib, io, json, os, tarfile

with tarfile.open("contiguous.tar", "w") as archive:
    entry = tarfile.TarInfo("file")
    entry.type, entry.size = tarfile.CONTTYPE, 5
    archive.addfile(entry, io.BytesIO(b"text\n"))

for name in ("git", "contiguous"):
    blobs = name + "/blobs/sha256/"
    os.makedirs(blobs)

    def put(data, media):
        digest = hashlib.sha256(data).hexdigest()
        with open(blobs + digest, "wb") as out:
            out.write(data)
        return {"mediaType": "application/vnd.oci.image." + media, "digest": "sha256:" + digest, "size": len(data)}

    with open(name + ".tar", "rb") as source:
        layer = put(source.read(), "layer.v1.tar")
    document = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    config = put(json.dumps(document).encode(), "config.v1+json")
    manifest = put(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    with open(name + "/index.json", "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, out)
    with open(name + "/oci-layout", "w") as out:
        out.write('{"imageLayoutVersion":"1.0.0"}')
END
python3 image.py

umoci --version
# unpack NAME TYPE
unpack() {
  mkdir "$1.gnu" "$1.busybox"
  tar -xf "$1.tar" -C "$1.gnu" 2>/dev/null
  busybox tar -xf "$1.tar" -C "$1.busybox"
  status=0
  umoci unpack --rootless --image "$1:1" "$1.bundle" 2>said || status=$?
  echo "$1.tar: GNU tar: $(ls "$1.gnu"), BusyBox: $(ls "$1.busybox"), umoci: status $status $(sed 's/.*unpack entry: //' said)"
  if [ "$(cat "$1.gnu/file" "$1.busybox/file" | tr '\n' ' ')" != "text text " ] || [ $status != 1 ]; then
    echo "changed" >&2
    exit 1
  fi
  grep -qF "unknown typeflag '\\x$2'" said || { echo "changed: the reason" >&2 && exit 1; }
}
unpack git 67
unpack contiguous 37
