#!/usr/bin/env bash
# npm run demo: from a fresh clone to a command that runs in a microVM. Installs what is
# missing, says why, and can be repeated: the second run takes seconds.
set -euo pipefail
. "$(dirname "$0")/lib/prepare.sh"
cd "$root"

prepare_npm
prepare_apt demo
prepare_agent
prepare_images base

# shellcheck disable=SC2016 # the guest expands it
command='echo "Hello from Linux $(uname -r), $(. /etc/os-release && echo "$PRETTY_NAME"), as $(id -un)"; nproc; free -m | head -2; df -h / | tail -1'
say "vmsan run base -- sh -c '$command'"
limited 300 bin/vmsan run base -- sh -c "$command"
say "try it: VMSAN_DIR=$VMSAN_DIR bin/vmsan run base -- bash -c 'id; ls /'"
