#!/usr/bin/env bash
# npm run build: dist/ as the package ships it: bundled programs, types, guest agents.
set -euo pipefail
. "$(dirname "$0")/lib/prepare.sh"
cd "$root"

prepare_npm
aside=$root/.cache/dist.$$
trap 'rm -rf "$aside"' EXIT
rm -rf "$aside"
node scripts/bundle.ts "$aside"
tsc -p tsconfig.build.json --outDir "$aside"
for arch in x86_64:amd64 aarch64:arm64; do
  build_agent "${arch#*:}" "$aside/agent/vmsan-agent-${arch%:*}"
done
rm -rf dist
mv "$aside" dist
say "dist/: $(du -sh dist | cut -f1)"
