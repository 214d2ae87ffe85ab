#!/bin/sh
# Which: buildah 1.28.2 (Debian 12, 1.28.2+ds1-3+deb12u1+b3).
# Does: `RUN --mount=type=secret,id=s,required` is how Docker's builder takes a secret that must be there; `required=true` is the
#   same in more words. buildah looks for the value behind the equals sign without looking for that one first, so it ends with a
#   trace of Go's and status 2, whether the secret was given or not: no word of the Dockerfile, of the line or of the flag.
#   A file system to run the command in is not even needed.
# Seen: with `required=true` an error of its own for the step (there is no program in an empty image), with `required`
#   "panic: runtime error: index out of range [1] with length 1".
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download buildah=1.28.2+ds1-3+deb12u1+b3 libgpgme11=1.18.0-3+deb12u1 \
  libassuan0=2.5.5-5 libdevmapper1.02.1=2:1.02.185-2 libseccomp2=2.5.4-1+deb12u1
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/bin:$PATH
LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu
BUILDAH_ISOLATION=chroot
export PATH LD_LIBRARY_PATH BUILDAH_ISOLATION

mkdir context
echo value >secret
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >policy.json
buildah --version
for word in required=true required; do
  printf 'FROM scratch\nRUN --mount=type=secret,id=s,%s true\n' $word >context/Dockerfile
  unshare --map-root-user buildah --root "$dir/store" --runroot "$dir/run" --storage-driver vfs build \
    --signature-policy "$dir/policy.json" --secret id=s,src=secret context >said 2>&1 || true
  echo "$word: $(grep -m 1 -o -E 'panic: .*|building at STEP' said)"
done | tee seen
cat >expected <<'END'
required=true: building at STEP
required: panic: runtime error: index out of range [1] with length 1
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
