# Shared by the scripts beside it; sourced, not run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CARGO_DENY_VERSION=0.20.2
CACHE=${PATINA_CACHE:-${HOME:-/root}/.cache/patina}
TARGET=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# The path of cargo-deny, built from crates.io once: without optimisation it builds in a minute and runs in a second.
cargo_deny() {
  local home=$CACHE/cargo-deny-$CARGO_DENY_VERSION
  if [ ! -x "$home/bin/cargo-deny" ]; then
    say "deny: building cargo-deny $CARGO_DENY_VERSION (once; kept in $CACHE)"
    mkdir -p "$CACHE"
    (
      flock 9
      [ ! -x "$home/bin/cargo-deny" ] || exit 0
      build=$(mktemp -d)
      trap 'rm -rf "$build"' EXIT
      CARGO_TARGET_DIR=$build cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --debug --quiet \
        --config 'profile.dev.debug=false' --root "$home" >&2
    ) 9>"$CACHE/.cargo-deny.lock"
  fi
  echo "$home/bin/cargo-deny"
}
