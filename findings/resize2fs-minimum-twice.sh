#!/bin/sh
# Which: resize2fs 1.47.0 (Debian 12, e2fsprogs 1.47.0-2+b2), on a file system that mke2fs has just filled.
# Does: `resize2fs -M` makes a file system "as small as possible", and says so by ending with status 0; the same command again makes it
#   smaller by a fifth, and a third time by a little more. Only when it says "Nothing to do" is it done: it estimates with the
#   group descriptors and inode tables that the larger file system has.
# Seen: 4 GiB with 60 MB in it: 46532 blocks, then 36081, then 36062, then nothing to do.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2 libcom-err2=1.47.0-2+b2 libss2=1.47.0-2+b2
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/sbin:$PATH
LD_LIBRARY_PATH=$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu
export PATH LD_LIBRARY_PATH

for i in 1 2 3 4 5 6; do
  mkdir -p "tree/$i"
  head -c $((i * 3000000)) /dev/urandom >"tree/$i/large"
  for j in $(seq 200); do echo "$j" >"tree/$i/$j"; done
done
mke2fs -q -t ext4 -E hash_seed=00000000-0000-0000-0000-000000000001 -d tree image 4G
sizes=
for _ in 1 2 3 4; do
  said=$(resize2fs -M image 2>&1)
  echo "$said" | sed '/^$/d'
  sizes="$sizes $(echo "$said" | sed -n 's/^The filesystem .* \([0-9]*\) (4k) blocks long.*/\1/p')"
done
# shellcheck disable=SC2086 # four numbers
set -- $sizes
if [ "$(($2 * 5))" -gt "$(($1 * 4))" ] || [ "$3" -ge "$2" ] || [ "$4" -ne "$3" ]; then
  echo "changed" >&2
  exit 1
fi
