# What the demo and the tests need, made when it is missing; all of it can be repeated.
# shellcheck shell=bash source-path=SCRIPTDIR

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Whether node_modules is what package-lock.json says; needs any Node.js, however old.
node_modules_match() {
  [ -x "$root/node_modules/.bin/node" ] || return 1
  node - "$root" <<'JS'
const { readFileSync } = require("node:fs");
const read = (file) => JSON.parse(readFileSync(`${process.argv[2]}/${file}`, "utf8")).packages;
try {
  const wanted = read("package-lock.json");
  const found = read("node_modules/.package-lock.json");
  for (const [path, { version, optional }] of Object.entries(wanted)) {
    if (path === "" || (found[path] === undefined && optional)) continue;
    if (found[path]?.version !== version) process.exit(1);
  }
} catch {
  // No hidden lock file: an installation was cut short.
  process.exit(1);
}
JS
}

# npm packages, among them the Node.js that everything else runs with. Not by `npm ci`: it refuses
# when a registry has no builds of optional packages for other platforms than this one. That what
# was installed is what the lock file says is checked afterwards.
prepare_npm() {
  node_modules_match && return
  say "npm install: TypeScript, test runner, and Node.js itself (as npm package \"node\")"
  (cd "$root" && limited 600 npm install --no-save --no-audit --no-fund --loglevel=error </dev/null >&2) ||
    die "npm install failed"
  [ -x "$root/node_modules/.bin/node" ] ||
    die "npm left no Node.js in node_modules/.bin: are install scripts switched off (npm config get ignore-scripts)?"
  node_modules_match || die "npm installed something else than package-lock.json says: remove node_modules and try again"
}

# prepare_apt KIND…: Debian packages of those kinds in packages.txt.
prepare_apt() {
  local kinds=" $* " name kind why missing=() reasons=()
  if ! command -v dpkg-query >/dev/null; then
    say "no Debian here: install by hand what scripts/lib/packages.txt names"
    return
  fi
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
  while IFS='|' read -r name kind why; do
    name=${name// /} kind=${kind// /}
    case $name in '' | '#'*) continue ;; esac
    [[ $kinds == *" $kind "* ]] || continue
    grep -qxF -- "$name" <<<"$installed" && continue
    missing+=("$name")
    reasons+=("    $name:$why")
  done <"$root/scripts/lib/packages.txt"
  [ ${#missing[@]} -eq 0 ] && return
  say "installing Debian packages:"
  printf '%s\n' "${reasons[@]}" >&2
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq
    --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}")
  local log=$cache/apt.log status=0
  mkdir -p "$cache"
  # The lists may be old or missing: only then fetch them.
  as_root timeout 900 "${install[@]}" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -eq 77 ]; then
    die "not root, and sudo asks for a password: run  apt-get install ${missing[*]}"
  elif [ "$status" -ne 0 ]; then
    as_root timeout 300 apt-get update -qq -o DPkg::Lock::Timeout=300 >"$log" 2>&1 </dev/null || true
    as_root timeout 900 "${install[@]}" >>"$log" 2>&1 </dev/null ||
      die "apt-get install failed: $(tail -n 5 "$log")"
  fi
}

# go_arch MACHINE: Go's name for it.
go_arch() {
  case $1 in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) die "no guest agent for $1" ;;
  esac
}

# The guest agent, the native client, the file server, the server of ssh and the network helper, by Go, each cached by the hash of all that goes into it.
# The names are the ones that src/util/package.ts looks for.
prepare_agent() {
  local arch
  arch=$(uname -m)
  command -v go >/dev/null || die "no Go found: the guest agent is written in Go (1.26 or newer)"
  prepare_go "$arch" vmsan-agent guest ./cmd/agent
  prepare_go "$arch" vmsan-client guest ./cmd/client
  prepare_go "$arch" vmsan-fileserver guest ./cmd/fileserver
  # The only one that needs modules of others: where none can be fetched, everything but ssh works.
  (prepare_go "$arch" vmsan-ssh guest ./cmd/ssh) || say "no ssh in guests: vmsan-ssh cannot be built"
  prepare_go "$arch" vmsan-nethelper src/network/helper .
}

# prepare_go MACHINE NAME MODULE-DIR PACKAGE
prepare_go() {
  local goarch out key
  goarch=$(go_arch "$1")
  out=$cache/agent/$2-$1
  key=$(go_key "$goarch" "$3")
  # The sum shows that the binary is still the one that was built here.
  [ -x "$out" ] && [ "$(cat "$out.key" 2>/dev/null)" = "$key $(sha256sum <"$out")" ] && return
  say "go build: $2"
  build_go "$goarch" "$3" "$4" "$out"
  printf '%s %s\n' "$key" "$(sha256sum <"$out")" >"$out.key"
}

# go_key GOARCH MODULE-DIR: hash of sources, toolchain and target.
go_key() {
  (
    cd "$root" || exit
    go version
    echo "$1" "$(package_version)" "$agent_settings"
    find "$2" -name testdata -prune -o -type f ! -name '*_test.go' ! -name '*.ts' -print0 | sort -z |
      xargs -0 sha256sum
  ) | sha256sum | cut -c1-64
}

# Version of this package.
package_version() {
  sed -n 's/^  "version": "\(.*\)",$/\1/p' "$root/package.json"
}

# Go's settings for the agent. Go interrupts by signals what has run for 10 ms, which in an emulated guest is nearly
# everything: the signals cost more than they gain, and no loop of the agent's is without a call, where Go looks too.
agent_settings=asyncpreemptoff=1

# build_go GOARCH MODULE-DIR PACKAGE OUTPUT: a static binary, the same bytes for the same sources;
# put in place by a rename, so that nobody ever runs half of one.
build_go() {
  local version settings="" aside=$4.$$
  version=$(package_version)
  case $3 in */agent) settings="-X runtime.godebugDefault=$agent_settings" ;; esac
  mkdir -p "$(dirname "$4")"
  (cd "$root/$2" && CGO_ENABLED=0 GOOS=linux GOARCH=$1 GOTOOLCHAIN=local limited 600 \
    go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$version $settings" \
    -o "$aside" "$3") || { rm -f "$aside"; die "$3 in $2 does not build"; }
  mv -f "$aside" "$4"
}

# prepare_images NAME…: kernel and runtimes for the demo and the tests, in a VMSAN_DIR of the checkout's own unless
# one is given.
prepare_images() {
  export VMSAN_DIR=${VMSAN_DIR:-$cache/vmsan}
  limited 900 node "$root/scripts/prepare-images.ts" "$@" || die "the kernel or an image could not be made"
}
