#!/usr/bin/env bash
# scripts/build-kernel.sh [ARCH] [OUTPUT]: the trimmed guest kernel, out of Debian's source package.
#
# ARCH    x86_64 or aarch64 (cross-compiled when it is not this machine's); default: this machine's
# OUTPUT  the kernel; default .cache/kernel/trimmed-6.1-ARCH (vmlinux for x86_64, Image for aarch64);
#         its modules are in OUTPUT.modules, as /lib/modules/VERSION has them
#
# Takes about a quarter of an hour on two cores and 2 GB of disk, so it is never part of an installation.
# The result is kept under a key of the source's version and the configuration: a second run with
# nothing changed does nothing. `vmsan kernel add OUTPUT --modules OUTPUT.modules` makes it known.
# Needs: linux-source-6.1 (fetched without root when absent), build-essential bc flex bison
# libelf-dev libssl-dev xz-utils; for the other architecture gcc-aarch64-linux-gnu or
# gcc-x86-64-linux-gnu.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
arch=${1:-$(uname -m)}
case $arch in
  x86_64) karch=x86_64 target=vmlinux made=vmlinux cross=x86_64-linux-gnu- ;;
  aarch64) karch=arm64 target=Image made=arch/arm64/boot/Image cross=aarch64-linux-gnu- ;;
  *)
    echo "build-kernel: no kernel for $arch" >&2
    exit 2
    ;;
esac
[ "$arch" != "$(uname -m)" ] || cross=
output=${2:-$root/.cache/kernel/trimmed-6.1-$arch}
jobs=${VMSAN_JOBS:-$(nproc)}

say() { printf 'build-kernel: %s\n' "$*" >&2; }
for tool in make flex bison bc xz patch "${cross}gcc"; do
  command -v "$tool" >/dev/null || {
    say "there is no $tool; install: build-essential bc flex bison libelf-dev libssl-dev xz-utils${cross:+ gcc-${cross%-}}"
    exit 1
  }
done

fragments=("$here/kernel/trimmed-6.1.fragment" "$here/kernel/trimmed-6.1.modules.fragment")
# Lines of the first that x86 alone knows are dropped elsewhere; all others must hold.
binding=("${fragments[@]}")
if [ "$arch" = aarch64 ]; then
  fragments+=("$here/kernel/trimmed-6.1.aarch64.fragment")
  binding=("${fragments[@]:1}")
fi
version=$(apt-cache policy linux-source-6.1 | sed -n 's/^  Candidate: //p')
case $version in
  '' | '(none)')
    say "apt knows no linux-source-6.1; run apt-get update"
    exit 1
    ;;
esac
patch=$here/kernel/trimmed-6.1.patch
key=$( (echo "$version" "$arch"; cat "$patch" "${fragments[@]}") | sha256sum | cut -c1-64)
if [ -f "$output" ] && [ -d "$output.modules" ] && [ "$(cat "$output.key" 2>/dev/null)" = "$key" ]; then
  say "$output is up to date"
  exit 0
fi

mkdir -p "$(dirname "$output")"
# One build at a time in this directory; what a killed one has left goes first.
exec 9>"$(dirname "$output")/.lock"
flock 9
rm -rf "$(dirname "$output")"/.build-??????
work=$(mktemp -d "$(dirname "$output")/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
source=/usr/src/linux-source-6.1.tar.xz
if [ "$(dpkg-query -W -f '${Version}' linux-source-6.1 2>/dev/null)" != "$version" ]; then
  say "fetching linux-source-6.1 $version"
  (cd "$work" && apt-get -q -o APT::Sandbox::User=root download linux-source-6.1 >&2)
  dpkg-deb -x "$work"/linux-source-6.1_*.deb "$work/package"
  source=$work/package/usr/src/linux-source-6.1.tar.xz
fi
say "unpacking $source"
tar -xJf "$source" -C "$work"
tree=$work/linux-source-6.1
# Nothing is guessed: where the source has become another one, the patch has to be looked at.
patch -d "$tree" -p1 --fuzz=0 --batch --quiet <"$patch" >&2

build() { nice -n 19 make -C "$tree" ARCH="$karch" CROSS_COMPILE="$cross" -j"$jobs" "$@"; }
# The same source gives the same kernel, whoever builds it and when.
export KBUILD_BUILD_USER=vmsan KBUILD_BUILD_HOST=vmsan KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC'
build -s tinyconfig >/dev/null
(cd "$tree" && ARCH=$karch scripts/kconfig/merge_config.sh -m .config "${fragments[@]}" >/dev/null)
build -s olddefconfig >&2
# A line that Kconfig has dropped is a broken kernel: better none, and sooner.
missing=$(grep -h '^CONFIG_.*=[ym]' "${binding[@]}" | grep -vxFf "$tree/.config" || true)
if [ -n "$missing" ]; then
  say "Kconfig does not take over: $(echo "$missing" | tr '\n' ' ')"
  exit 1
fi
say "building $target and modules with $jobs jobs"
build -s "$target" modules >&2
# vmsan reads the modules themselves: there is nothing for depmod to do.
build -s INSTALL_MOD_PATH="$work/installed" INSTALL_MOD_STRIP=1 DEPMOD=true modules_install >&2
if [ "$made" = vmlinux ]; then
  # Without symbols, which QEMU would read and sort at each start.
  "${cross}strip" -o "$work/kernel" "$tree/$made"
else
  cp "$tree/$made" "$work/kernel"
fi
rm -rf "$output.modules" "$output.key"
mv "$work"/installed/lib/modules/* "$output.modules"
rm -f "$output.modules/build" "$output.modules/source"
mv -f "$work/kernel" "$output"
cp "$tree/.config" "$output.config"
printf '%s\n' "$key" >"$output.key"
say "$output: $(stat -c %s "$output") bytes"
