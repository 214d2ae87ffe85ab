#!/bin/sh
# Which: BusyBox 1.35 (Debian 12, busybox-static 1:1.35.0-4+deb12u1+b1), against coreutils 9.1 (9.1-1).
# Does: BusyBox's `timeout` becomes the command and leaves another process to send the signal, so the status is the command's own, never 124:
#   what heeds SIGTERM and ends well has succeeded, and nobody can tell that its time was over. A limit of 0, which is none
#   for coreutils, is one second.
# Seen: killed 124 and 143; ending well by a trap 124 and 0; `timeout 0 sleep 2` 0 and 143.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download busybox-static=1:1.35.0-4+deb12u1+b1 coreutils=9.1-1
for file in *.deb; do dpkg-deb -x "$file" root; done

cat >well.sh <<'END'
trap 'exit 0' TERM
sleep 2 >/dev/null 2>&1 &
wait
END
# both WHAT ARGUMENT...: the status of each of the two.
both() {
  what=$1
  shift
  gnu=0
  busybox=0
  root/usr/bin/timeout "$@" 2>/dev/null || gnu=$?
  root/bin/busybox timeout "$@" 2>/dev/null || busybox=$?
  echo "$what: coreutils $gnu, BusyBox $busybox"
}
{
  both "in time" 9 true
  both "too late" 1 sleep 4
  both "too late, ends well" 1 sh well.sh
  both "limit 0" 0 sleep 2
} 2>/dev/null | tee seen
cat >expected <<'END'
in time: coreutils 0, BusyBox 0
too late: coreutils 124, BusyBox 143
too late, ends well: coreutils 124, BusyBox 0
limit 0: coreutils 0, BusyBox 143
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
