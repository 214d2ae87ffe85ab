#!/bin/sh
# Which: nft 1.0.6 (Debian 12, nftables and libnftables1 1.0.6-2+deb12u2), in a network namespace of its own.
# Does: its JSON has no word for a set's flag `dynamic`: what `nft -j list ruleset` writes and `nft -j -f` reads again is another
#   set. `nft list ruleset` with `nft -f` keeps it.
# Seen: "flags dynamic,timeout" before, after text the same, after JSON "flags timeout".
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 \
  libjansson4=2.14-2 libmnl0=1.0.4-3 libxtables12=1.8.9-2 libedit2=3.1-20221030-2
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/sbin:$PATH
LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu
export PATH LD_LIBRARY_PATH
cat >inside.sh <<'END'
flags() {
  nft list set inet filter seen | sed -n 's/^[[:space:]]*flags //p'
}
nft --version
nft add table inet filter
nft 'add set inet filter seen { type ipv4_addr; flags dynamic,timeout; }'
echo "before: $(flags)"
nft list ruleset >text
nft -j list ruleset >json
nft flush ruleset
nft -f text
echo "after text: $(flags)"
nft flush ruleset
nft -j -f json
echo "after JSON: $(flags)"
END
unshare --map-root-user --net sh inside.sh | tee printed
sed 1d printed >seen
cat >expected <<'END'
before: dynamic,timeout
after text: dynamic,timeout
after JSON: timeout
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
