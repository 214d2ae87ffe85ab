#!/usr/bin/env bash
# npm run build: dist/ as the package ships it: bundled programs, types, programs in Go.
#
# scripts/build.sh [DIR [MACHINE…]]   another directory than dist/, other machines than both
set -euo pipefail
. "$(dirname "$0")/lib/prepare.sh"
cd "$root"

output=${1:-$root/dist}
machines=${*:2}
prepare_npm
aside=$root/.cache/dist.$$
trap 'rm -rf "$aside"' EXIT
rm -rf "$aside"
node scripts/bundle.ts "$aside"
tsc -p tsconfig.build.json --outDir "$aside"
for arch in ${machines:-x86_64 aarch64}; do
  build_go "$(go_arch "$arch")" guest ./cmd/agent "$aside/guest/vmsan-agent-$arch"
  build_go "$(go_arch "$arch")" guest ./cmd/client "$aside/guest/vmsan-client-$arch"
  build_go "$(go_arch "$arch")" guest ./cmd/fileserver "$aside/guest/vmsan-fileserver-$arch"
  build_go "$(go_arch "$arch")" guest ./cmd/ssh "$aside/guest/vmsan-ssh-$arch"
  build_go "$(go_arch "$arch")" src/network/helper . "$aside/guest/vmsan-nethelper-$arch"
done
mkdir "$aside/guest/interpreter"
cp guest/interpreter/*.py guest/interpreter/*.mjs "$aside/guest/interpreter"
rm -rf "$output"
mkdir -p "$(dirname "$output")"
mv "$aside" "$output"
say "$output: $(du -sh "$output" | cut -f1)"
