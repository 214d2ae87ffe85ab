#!/bin/sh
# Which: qemu-img 7.2.22 (Debian 12, qemu-utils 1:7.2+dfsg-7+deb12u18+b3).
# Does: what it copies has whole sectors of 512 bytes, from raw to raw, too: `convert` and `dd` make 1,024 bytes of a file of 1,000, with
#   zeroes behind it, and say nothing; `compare` calls the two identical. So a digest is another one, and what is looked
#   for at the end (GPT's second table, a signature) is not where it was.
# Seen: 1000 bytes, 1024 by convert, 1024 by dd with bs=100; compare ends with status 0.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
# Only qemu-img's own version counts.
apt-get -o APT::Sandbox::User= -qq download qemu-utils=1:7.2+dfsg-7+deb12u18+b3 libaio1 libffi8 libglib2.0-0 libgmp10 \
  libgnutls30 libhogweed6 libidn2-0 libnettle8 libnuma1 libp11-kit0 libpcre2-8-0 libtasn1-6 libunistring2 liburing2 libzstd1
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/bin:$PATH
LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu
export PATH LD_LIBRARY_PATH

head -c 1000 /dev/urandom >file.raw
qemu-img --version | sed -n 1p
qemu-img convert -f raw -O raw file.raw converted.raw
qemu-img dd -f raw -O raw bs=100 if=file.raw of=copied.raw
stat -c '%n %s' file.raw converted.raw copied.raw | tee sizes
qemu-img compare -f raw -F raw file.raw converted.raw
cat >expected <<'END'
file.raw 1000
converted.raw 1024
copied.raw 1024
END
cmp sizes expected || { echo "changed" >&2 && exit 1; }
