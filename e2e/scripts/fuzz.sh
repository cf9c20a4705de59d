#!/usr/bin/env bash
# Builds the fuzz targets with the pinned stable toolchain and runs them: docs/decisions/0016-fuzzing-on-stable.md.
#
#   fuzz.sh build               no more than that
#   fuzz.sh run [TARGET..]      TIME seconds each (60); what it learns stays in target/fuzz/corpus
#   fuzz.sh smoke [TARGET..]    the committed corpus, and SMOKE seconds each (5); a "step" line each, as check.sh prints
#   fuzz.sh one TARGET FILE     one input again, such as one in fuzz/artifacts
#   fuzz.sh minimise [TARGET..] writes fuzz/corpus anew: few inputs that together reach all that is known
. "$(dirname "$0")/common.sh"

HOST=$(rustc -vV | sed -n 's/^host: //p')
BIN=$TARGET/fuzz/$HOST/release
LEARNT=$TARGET/fuzz/corpus
# A hang is a bug, too; so is a small text that costs a lot of memory.
LIMITS=(-timeout=10 -rss_limit_mb=1024 -max_len=8192)

targets() {
  local file
  if [ $# -gt 0 ]; then printf '%s\n' "$@"; else
    for file in fuzz/fuzz_targets/*.rs; do basename "$file" .rs; done
  fi
}

# What cargo-fuzz passes, less the address sanitizer, which only a nightly compiler has. --target keeps it off build scripts
# and macros.
build() {
  command -v c++ >/dev/null || die "fuzz: c++ is missing (libFuzzer is C++): \`make setup\` installs it"
  CARGO_TARGET_DIR=$TARGET/fuzz RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$HOST"
}

# Runs a target over its corpora; on failure the end of what it said and how to see it again.
fuzz() {
  local target=$1 log=$TARGET/fuzz/$1.log
  shift
  mkdir -p "$LEARNT/$target" "fuzz/artifacts/$target" "fuzz/corpus/$target"
  if "$BIN/$target" "${LIMITS[@]}" -dict=fuzz/dictionary.txt -artifact_prefix="fuzz/artifacts/$target/" "$@" \
    "$LEARNT/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
    return 0
  fi
  grep -vE '^(#[0-9]|[[:space:]]NEW_FUNC|  +[0-9]+: |  +at )' "$log" | tail -n 60 >&2
  sed -n "s|^.*Test unit written to \(.*\)|fuzz: again: e2e/scripts/fuzz.sh one $target \1|p" "$log" >&2
  return 1
}

# "1234 runs, 567 places, 89 inputs" of a log.
summary() {
  awk '/^Done/ { runs = $2 }
    / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i+1); if ($i == "corp:") corp = $(i+1) } }
    END { sub("/.*", "", corp); printf "%d runs, %d places reached, %d inputs", runs, cov, corp }' "$TARGET/fuzz/$1.log"
}

run() {
  local target failed=0
  for target in $(targets "$@"); do
    if fuzz "$target" "-max_total_time=${TIME:-60}"; then
      echo "$target: $(summary "$target")"
    else
      echo "$target: FAILED"
      failed=1
    fi
  done
  return $failed
}

smoke() {
  local target failed=0
  for target in $(targets "$@"); do
    say "--- fuzz $target"
    [ -n "$(ls "fuzz/corpus/$target" 2>/dev/null)" ] || die "fuzz: fuzz/corpus/$target is empty"
    # The same inputs each time: CI shows what a change broke, `make fuzz` looks for what was never seen.
    if fuzz "$target" -seed=1 "-max_total_time=${SMOKE:-5}"; then
      echo "step ok: fuzz $target ($(summary "$target"))"
    else
      echo "step FAILED: fuzz $target"
      failed=1
    fi
  done
  return $failed
}

one() {
  [ $# = 2 ] || die "usage: fuzz.sh one TARGET FILE"
  "$BIN/$1" "${LIMITS[@]}" "$2"
}

minimise() {
  local target new
  for target in $(targets "$@"); do
    new=$(mktemp -d)
    "$BIN/$target" -set_cover_merge=1 -use_counters=0 -use_value_profile=0 -max_len=2048 "$new" "fuzz/corpus/$target" \
      "$LEARNT/$target" >"$TARGET/fuzz/$target.log" 2>&1 || die "$(tail -n 30 "$TARGET/fuzz/$target.log")"
    # Found once, kept for ever.
    find "fuzz/corpus/$target" -type f ! -name 'was-*' -delete
    cp "$new"/* "fuzz/corpus/$target/"
    rm -r "$new"
    echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs, $(du -sb "fuzz/corpus/$target" | cut -f 1) bytes"
  done
}

main() {
  local what=${1:-}
  declare -F "$what" >/dev/null || die "fuzz: build, run, smoke, one or minimise"
  shift
  build
  [ "$what" = build ] || "$what" "$@"
}

main "$@"
exit
