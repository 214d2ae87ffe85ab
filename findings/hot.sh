#!/bin/sh
# Node.js 24.21.0 (npm's package node@24.21.0): `--` keeps --env-file behind it
# from being read as an option of Node's own, but not --experimental-config-file.
#
# `node -- script.cjs --env-file missing` runs the script, which sees its words. The same with
# `--experimental-config-file missing` never reaches the script: Node.js takes the option from behind both the
# `--` and the script's name, looks for the file, says "not found" and ends with 9. Programs that pass users'
# words on to Node.js can therefore not rely on `--`. Fails when either of the two changes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund node@24.21.0 >/dev/null
node=$dir/node_modules/.bin/node
echo 'console.log(JSON.stringify(process.argv.slice(2)))' >script.cjs
"$node" --version
status=0
one=$("$node" -- script.cjs --env-file missing 2>&1) || status=$?
echo "-- script.cjs --env-file missing: status $status: $one"
[ "$status" -eq 0 ] && [ "$one" = '["--env-file","missing"]' ]
two=$("$node" -- script.cjs --experimental-config-file=missing 2>&1) || status=$?
echo "-- script.cjs --experimental-config-file=missing: status $status: $two"
[ "$status" -eq 9 ]
case $two in *"not found"*) ;; *) exit 1 ;; esac
