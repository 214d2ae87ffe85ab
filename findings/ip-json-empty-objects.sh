#!/bin/sh
# Which: ip of iproute2 6.1.0 (Debian 12, 6.1.0-3), in a network namespace of its own.
# Does: with -json, what `link show up` and `address show up` leave out stays in the array as an empty object, and of what `address show
#   label` leaves out an object without a name stays: the length of the array is not the number of interfaces found, and
#   `.[0].ifname` is undefined. Without -json nothing is printed for them.
# Seen: of one interface that is down: [{}], [{}], [{"addr_info":[]}], and as text nothing.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download iproute2=6.1.0-3
dpkg-deb -x iproute2_*.deb root
root/bin/ip -V
cat >inside.sh <<'END'
ask() {
  echo "$*: json '$(root/bin/ip -json "$@")', text '$(root/bin/ip "$@")'"
}
ask link show up
ask address show up
ask address show label eth7
END
unshare --map-root-user --net sh inside.sh | tee seen
cat >expected <<'END'
link show up: json '[{}]', text ''
address show up: json '[{}]', text ''
address show label eth7: json '[{"addr_info":[]}]', text ''
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
