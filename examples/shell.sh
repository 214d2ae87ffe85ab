#!/bin/sh
# A VM from a shell script: its ID from --json, its exit statuses as of any command.
set -eu
vmsan=${VMSAN:-vmsan}

id=$("$vmsan" create --json --memory 256m | grep -o '"vmId":"[^"]*"' | cut -d'"' -f4)
trap '"$vmsan" rm -f "$id" >/dev/null' EXIT

# shellcheck disable=SC2016 # the guest expands it
"$vmsan" exec "$id" -- sh -c 'echo "it runs Linux $(uname -r)"'
echo "one two three" | "$vmsan" exec "$id" wc -w
"$vmsan" exec "$id" -- sh -c 'exit 3' || echo "and the status comes back: $?"
