#!/usr/bin/env bash
# Builds klamm of an earlier commit, by default the one before the present commit (its first parent), and prints where the
# binary is. Sources, what cargo made and the last binaries lie in a cache outside the clone, so a later run compiles klamm's
# own crate alone, or nothing. Prints nothing where there is no such commit, as in a clone without history.
#
# Usage: scripts/earlier-klamm.sh [COMMIT]
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${KLAMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/klamm}/earlier
kept=3
say() { printf '%s\n' "$*" >&2; }

commit=$(git rev-parse --verify --quiet "${1:-HEAD^1}^{commit}") || { say "earlier-klamm: there is no ${1:-commit before HEAD} here"; exit 0; }
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
binary=$cache/klamm-$commit
if [ ! -x "$binary" ]; then
  say "earlier-klamm: building $(git log -1 --format='%h %s' "$commit")"
  rm -rf "$cache/source"
  mkdir "$cache/source"
  # With times of now: cargo would take those of the commit for older than what it has made, and build nothing.
  git archive "$commit" | tar -x -m -C "$cache/source"
  (cd "$cache/source" && CARGO_TARGET_DIR=$cache/target scripts/cargo build --release --locked --bin klamm) >&2
  cp "$cache/target/release/klamm" "$binary.new"
  mv "$binary.new" "$binary"
fi
touch "$binary"
ls -t "$cache"/klamm-* | tail -n +$((kept + 1)) | xargs -r -d '\n' rm -f
echo "$binary"
