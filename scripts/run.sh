#!/usr/bin/env bash
# Builds Lamplight and shows it: a live room with a test pattern. Arguments go to `lamplight demo`.
# All progress goes to stderr, so that with --print json the first line of stdout is the JSON.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'run: %s\n' "$*" >&2; exit 1; }

scripts/setup.sh >&2
# Where the set-up puts what it installs.
export PATH="$PWD/.tools/node_modules/.bin:$PATH:$HOME/.cargo/bin"
cargo xtask web >&2 || fail "the web pages did not build: see the lines above"
cargo build --release --locked --bin lamplight >&2 ||
  fail "the server did not build: see the lines above"
exec target/release/lamplight demo "$@"
