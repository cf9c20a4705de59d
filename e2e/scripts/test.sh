#!/usr/bin/env bash
# Runs the suites (all, or those that are named) and prints one line per suite with its counts. Each suite's output is in
# target/test-logs/SUITE.log. A failed suite does not stop the others; a suite that ran nothing has failed.
. "$(dirname "$0")/common.sh"

LOGS=$TARGET/test-logs
SUITES=(check api lab chart docs demo)

# The files of e2e/tests belong to suites by their names, so that a new file is in a suite without being listed.
files_of() {
  local file name suite
  for file in e2e/tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in
    workspace | docs_check) suite=check ;; # need no root: make check runs them
    chart*) suite=chart ;;
    docs*) suite=docs ;;
    *_api) suite=api ;;
    demo*) suite=demo ;;
    lab* | l2* | bgp* | speaker*) suite=lab ;;
    *) suite=api ;;
    esac
    [ "$suite" = "$1" ] && printf -- '--test\n%s\n' "$name"
  done
  return 0
}

tests_of() {
  local args
  mapfile -t args < <(files_of "$1")
  [ ${#args[@]} -gt 0 ] || {
    echo "no file in e2e/tests belongs to the suite $1"
    return 1
  }
  cargo test --workspace "${args[@]}" --no-fail-fast
}

suite_check() { e2e/scripts/check.sh; }
suite_api() { tests_of api; }
suite_lab() { tests_of lab; }
suite_chart() { tests_of chart; }
suite_docs() { tests_of docs; }
suite_demo() { tests_of demo; }

# "PASSED FAILED" of a log: cargo's closing lines and our steps.
count() {
  awk '
    /^test result: / { for (i = 1; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1) } }
    /^step ok: / { p++ }
    /^step FAILED: / { f++ }
    END { print p + 0, f + 0 }' "$1"
}

# Of a log: what the failed tests printed, what the failed steps printed (what stands between "---" and "step FAILED"),
# errors of the compiler; the end of the log when there is none of these.
what_failed() {
  awk '
    /^failures:$/ { inside = 1; n++ }
    inside { print }
    /^test result: FAILED/ { inside = 0 }
    /^--- / { step = "" }
    { step = step $0 "\n" }
    /^step FAILED: / { printf "%s", step; n++ }
    /^error(\[|:)/ && !inside { print; n++ }
    END { exit n == 0 }' "$1" || tail -n 60 "$1"
}

passed=0 failed=0 table=()
run() {
  local suite=$1 log=$LOGS/$1.log start=$SECONDS p f rc=0 note=""
  say "=== $suite (log: ${log#"$PWD"/})"
  "suite_$suite" >"$log" 2>&1 </dev/null || rc=$?
  read -r p f < <(count "$log")
  if [ "$p" = 0 ] && [ "$f" = 0 ]; then
    f=1 note=" (it ran no test)"
  elif [ $rc != 0 ] && [ "$f" = 0 ]; then
    f=1 note=" (exit code $rc)"
  fi
  if [ "$f" != 0 ]; then
    say "--- $suite failed$note:"
    what_failed "$log" | tail -n 200 >&2
  fi
  passed=$((passed + p)) failed=$((failed + f))
  table+=("$(printf '%-6s %5d passed %3d failed %5d s%s' "$suite" "$p" "$f" $((SECONDS - start)) "$note")")
  say "${table[-1]}"
}

# A function, so that all of this file is read before anything runs: it may be edited meanwhile.
main() {
  [ $# -gt 0 ] && SUITES=("$@")
  for suite in "${SUITES[@]}"; do
    declare -F "suite_$suite" >/dev/null || die "no suite $suite; there are: check api lab chart docs demo"
  done
  mkdir -p "$LOGS"
  [ "$(id -u)" = 0 ] || die "make test needs root for its network namespaces; make check does not"

  # Once, before the first test: what the tests start is what was just built.
  say "=== build"
  cargo build --workspace --bins --tests >"$LOGS/build.log" 2>&1 </dev/null || {
    tail -n 60 "$LOGS/build.log" >&2
    echo "0 passed, 1 failed"
    exit 1
  }
  export PATINA_BUILT=1
  "$TARGET/debug/lab-tools" >"$LOGS/tools.log"

  for suite in "${SUITES[@]}"; do run "$suite"; done

  echo
  printf '%s\n' "${table[@]}"
  echo
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}

main "$@"
exit
