#!/usr/bin/env bash
# npm test: everything that CI runs. Installs what is missing, says why, and can be repeated.
#
# scripts/test.sh [STEP…]   only those steps: static unit go e2e
#
# The last line is "N passed, N failed[, N skipped]" over all steps; the status is 1 unless
# nothing failed.
set -euo pipefail
. "$(dirname "$0")/lib/prepare.sh"
cd "$root"

steps=${*:-static unit go e2e}
for step in $steps; do
  case $step in
    static | unit | go | e2e) ;;
    *) die "unknown step '$step': static, unit, go, e2e" ;;
  esac
done
# Several runs at once must not read each other's reports.
results=$root/test-results/$$
rm -rf "$results"
mkdir -p "$results"
: >"$results/steps"
ahead=
trap 'end_ahead; rm -rf "$results"' EXIT

# step NAME SECONDS COMMAND…: run it within the time limit and note how it ended.
step() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  say "$name"
  limited "$limit" "$@" </dev/null || status=$?
  echo "$name $status $((SECONDS - start))" >>"$results/steps"
}

# vitest_run PROJECT REPORT [FILE…], and the projects whose names begin like it; then a failing file or three once more,
# said as such in the end: what fails twice is broken, what passes then is unsteady and has to be mended, but keeps
# nobody out.
vitest_run() {
  local project=$1 report=$2 again
  shift 2
  vitest run --project "$project*" --reporter=default --reporter=json \
    --outputFile.json="$results/$report.vitest.json" "$@" && return
  [ "$report" = "$project" ] || return 1
  mapfile -t again < <(node scripts/tally.ts --again "$results/$report.vitest.json")
  [ -n "${again[0]:-}" ] || return 1
  say "$project once more: ${again[*]}"
  vitest_run "$project" "$project-again" "${again[@]}"
  return 1
}

# vitest PROJECT SECONDS
vitest_step() {
  step "$1" "$2" bash -c "vitest_run $1 $1"
}

# go test of both modules with a report; fails when go does.
go_tests() {
  go_tests_of -json >"$results/go-test.gotest.jsonl"
}

# go_tests_of FLAG…
go_tests_of() {
  local status=0 module
  for module in guest src/network/helper; do
    (cd "$module" && go test -race -timeout 300s "$@" ./... 2>&1) || status=1
  done
  return "$status"
}

go_vet() {
  (cd guest && go vet ./...) && (cd src/network/helper && go vet ./...)
}

# Fails and names the files that gofmt would change.
go_format() {
  local wrong
  wrong=$(gofmt -l guest src/network/helper)
  [ -z "$wrong" ] || { printf 'gofmt would change:\n%s\n' "$wrong" >&2; return 1; }
}

# start_ahead COMMAND…: have what later tests need made beside earlier ones, with the time of processors that nobody else
# wants. Whoever comes to what is just being made ends it and makes it in its own time; what fails fails again there.
start_ahead() {
  # A session of its own, by which all of it can be ended.
  env -u VMSAN_TEST_AHEAD setsid chrt --idle 0 bash -c '. scripts/lib/prepare.sh; "$@"' ahead "$@" </dev/null &
  ahead=$!
  export VMSAN_TEST_AHEAD=$ahead
}

end_ahead() {
  [ -z "$ahead" ] || pkill -s "$ahead" || true # it has ended
  ahead=
}

# Images, the Go tests' packages, and what tests have of others: Kubernetes alone takes a quarter of an hour of processor time.
make_ahead() {
  node scripts/prepare-tests.ts unit
  (prepare_images base e2b builder) || true
  go_tests_of -run '^$' >/dev/null || true
  node scripts/prepare-tests.ts e2e
}
export -f say make_ahead go_tests go_tests_of go_vet go_format vitest_run
export results

prepare_npm
prepare_apt demo test

for step in $steps; do
  case $step in
    static)
      step types 180 npm run --silent types
      step lint 180 npm run --silent lint
      step format 60 npm run --silent format
      mapfile -t shells < <(git ls-files -co --exclude-standard '*.sh' bin/vmsan .ci/run | sort -u)
      step shell 60 shellcheck -x "${shells[@]}"
      ;;
    unit)
      prepare_agent
      [[ " $steps " != *" e2e "* ]] || start_ahead make_ahead
      vitest_step unit 1500
      ;;
    go)
      step go-vet 180 bash -c go_vet
      step go-format 30 bash -c go_format
      step go-test 900 bash -c go_tests
      ;;
    e2e)
      prepare_agent
      end_ahead
      prepare_images base e2b builder
      start_ahead node scripts/prepare-tests.ts e2e
      vitest_step install 720
      vitest_step e2e 3300
      ;;
  esac
done

end_ahead
node scripts/tally.ts "$results"
