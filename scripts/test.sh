#!/usr/bin/env bash
# Everything that must hold before a change lands, in one build profile; says what each step took.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# A failed step ends the run and is named in the last lines.
report=()
passed=0

finish() {
  local failed=$1
  printf '\n'
  printf '%s\n' "${report[@]}"
  printf 'total: %d s\n' "$SECONDS"
  printf 'steps: %d passed, %d failed\n' "$passed" "$failed"
  exit "$failed"
}

step() {
  local name=$1 began=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then
    report+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
    passed=$((passed + 1))
  else
    report+=("$(printf '%5d s  %s FAILED: %s' $((SECONDS - began)) "$name" "$*")")
    finish 1
  fi
}

step 'set-up' scripts/setup.sh --test
# Where the set-up puts what it installs.
export PATH="$PWD/.tools/node_modules/.bin:$PATH:$HOME/.cargo/bin"
export CARGO_TERM_COLOR=never
step 'web: types, unit tests, build' cargo xtask web --test
step 'check' cargo xtask check
step 'tests, with the fuzz corpora' cargo xtask test
step 'tests on PostgreSQL' cargo xtask test --db postgres
step 'end to end' cargo xtask e2e
finish 0
