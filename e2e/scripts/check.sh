#!/usr/bin/env bash
# Everything that needs no root and no API server. Goes on after a failure; prints one line per step that is no test
# ("step ok: NAME" or "step FAILED: NAME"), and the tests' own lines.
. "$(dirname "$0")/common.sh"

failed=()
step() {
  local name=$1 start=$SECONDS
  shift
  say "--- $name: $*"
  if "$@"; then
    echo "step ok: $name ($((SECONDS - start)) s)"
  else
    echo "step FAILED: $name"
    failed+=("$name")
  fi
}

# Tests count themselves; only their failure is noted here.
tests() {
  say "--- tests: $*"
  "$@" || failed+=("$*")
}

# A crate that compiles only because another one switches on a feature that it forgot to ask for.
alone() {
  local crate
  for crate in patina-crds patina-controller-core patina-speaker-core patina-runtime patina-controller patina-speaker \
    kubectl-patina patina-e2e; do
    cargo check --quiet -p "$crate" || return 1
  done
}

# One selection of packages for everything that is linked: cargo builds the dependencies anew for every other one,
# because it unites the features of what is selected. So the tests that need root are left out by not naming them.
named_tests() {
  local file
  for file in {cli,controller,controller/core,crds,crds/runtime,speaker,speaker/core}/tests/*.rs; do
    [ -e "$file" ] && printf -- '--test\n%s\n' "$(basename "$file" .rs)"
  done
  printf -- '--test\n%s\n' workspace docs_check
}
mapfile -t named < <(named_tests | sed 'N;s/\n/=/' | sort -u)

step fmt cargo fmt --all --check
step "fmt fuzz" cargo fmt --manifest-path fuzz/Cargo.toml --check
step clippy cargo clippy --quiet --workspace --all-targets -- -D warnings
step build cargo build --quiet --workspace --bins --tests
export PATINA_BUILT=1
tests cargo test --workspace --lib --bins "${named[@]}" --no-fail-fast
tests cargo test --workspace --doc --no-fail-fast
step alone alone
step rustdoc env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --quiet --workspace --no-deps --document-private-items
step deny "$(cargo_deny)" --log-level error check bans licenses sources
step "fuzz build" e2e/scripts/fuzz.sh build
tests e2e/scripts/fuzz.sh smoke

if [ ${#failed[@]} -gt 0 ]; then
  say "make check failed:"
  printf '  %s\n' "${failed[@]}" >&2
  exit 1
fi
