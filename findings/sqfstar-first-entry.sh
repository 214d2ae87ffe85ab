#!/bin/sh
# Which: sqfstar of squashfs-tools 4.5.1 (Debian 12, 1:4.5.1-1), against GNU tar.
# Does: of a name that an archive has twice (`tar -r`, layers one behind the other) tar's rule is that the last one counts. sqfstar
#   keeps the first, says so and ends with status 0. An entry for the top directory itself (`./`, as `tar -C dir .` writes
#   it) is passed over in the same way: the image's root has mode 0777 and the time of now, whatever the archive says.
# Seen: "first" and 0777 in the image; "second" and 0711 unpacked by tar.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download squashfs-tools=1:4.5.1-1
dpkg-deb -x squashfs-tools_*.deb root
PATH=$dir/root/usr/bin:$PATH

mkdir tree unpacked
chmod 711 tree
echo first >tree/name
tar -C tree -cf layer.tar .
echo second >tree/name
tar -C tree -rf layer.tar ./name

sqfstar -version | sed -n 1p
sqfstar -quiet -no-progress image.sqfs <layer.tar 2>&1
tar -C unpacked -xpf layer.tar
image="$(unsquashfs -cat image.sqfs name) $(unsquashfs -lln image.sqfs | awk 'NR == 1 { print $1 }')"
tar="$(cat unpacked/name) $(stat -c %A unpacked)"
echo "sqfstar: $image"
echo "tar:     $tar"
[ "$image" = "first drwxrwxrwx" ] || { echo "changed" >&2 && exit 1; }
[ "$tar" = "second drwx--x--x" ] || { echo "changed" >&2 && exit 1; }
