#!/usr/bin/env bash
# Installs what is missing to build Lamplight, on Debian 12 or Ubuntu: system packages, Rust, Node.
# With --test also what the tests drive. Asks nothing; says what it does; a second run does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUILD_PACKAGES=(
  ca-certificates curl git gcc libc6-dev make pkg-config clang libclang-dev
  libavcodec-dev libavformat-dev libavutil-dev libswresample-dev libswscale-dev
)
readonly TEST_PACKAGES=(
  ffmpeg postgresql nats-server
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-nice
  python3-gst-1.0 gir1.2-gst-plugins-bad-1.0 python3-venv
  obs-studio xvfb
)
# Vite, which builds the pages, needs this Node, and its lock file an npm that reads it.
readonly NODE_MAJOR=20 NODE_MINOR=19 NPM_MAJOR=11

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

has_program() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Packages of the list that dpkg does not have: nothing is asked of the network while all are there.
missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      printf '%s\n' "$package"
  done
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  has_program apt-get ||
    fail "install these with your package manager and run again: ${missing[*]}"
  [ "$(id -u)" = 0 ] || has_program sudo ||
    fail "run as root or install sudo; missing packages: ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update -qq >&2 ||
    fail "apt-get update failed: check the network and the apt sources, then run again"
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get install failed: mend the package its last line above names, then run again"
}

install_rust() {
  if has_program cargo; then return 0; fi
  say "installing Rust with rustup"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
    sh -s -- -y --profile minimal --no-modify-path >&2 ||
    fail "rustup failed: install Rust by hand (rustup.rs) and run again"
}

check_rust() {
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have=$(rustc --version | cut -d ' ' -f 2)
  [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
    fail "Rust $have is older than $wanted: run 'rustup update stable', or remove it to get rustup"
}

node_is_new_enough() {
  has_program node && has_program npm || return 1
  local version major minor
  version=$(node --version 2>/dev/null) || return 1
  IFS=. read -r major minor _ <<<"${version#v}"
  [ "$major" -gt "$NODE_MAJOR" ] ||
    { [ "$major" = "$NODE_MAJOR" ] && [ "$minor" -ge "$NODE_MINOR" ]; } || return 1
  version=$(npm --version 2>/dev/null) || return 1
  [ "${version%%.*}" -ge "$NPM_MAJOR" ]
}

# npm's own `node` package carries the program: one project folder holds it, nothing else changes.
install_node() {
  if node_is_new_enough; then return 0; fi
  has_program npm || install_packages nodejs npm
  say "installing Node 22 into .tools"
  mkdir -p .tools
  npm install --prefix .tools --no-audit --no-fund --silent node@22 npm@11 >&2 ||
    fail "npm could not install Node 22: install it by hand with npm $NPM_MAJOR and run again"
  hash -r
  node_is_new_enough ||
    fail "Node in .tools does not start: delete .tools and run again"
}

# A folder of its own for a Python program, at the versions of a list; a list that changed makes it
# anew.
install_python() {
  local name=$1 list=$2 folder=.tools/$1
  if cmp -s "$list" "$folder/installed.txt"; then return 0; fi
  say "installing $name into $folder"
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder" &&
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$list" >&2 ||
    fail "pip could not install $name: check the network and run again"
  cp "$list" "$folder/installed.txt"
}

# Rust and Node of this script's own making are found even where the shell's PATH lacks them; the
# other scripts write the same line.
export PATH="$PWD/.tools/node_modules/.bin:$PATH:$HOME/.cargo/bin"
packages=("${BUILD_PACKAGES[@]}")
tests=no
for argument in "$@"; do
  case "$argument" in
    --test)
      tests=yes
      packages+=("${TEST_PACKAGES[@]}")
      # Ubuntu has Chromium only as a snap: any browser of the family will do.
      has_program google-chrome || has_program chromium-browser || packages+=(chromium)
      ;;
    *) fail "unknown argument $argument: there is only --test" ;;
  esac
done
install_packages "${packages[@]}"
install_rust
check_rust
install_node
if [ "$tests" = yes ]; then
  install_python aiortc tests/e2e/peers/requirements.txt
  # A store that speaks S3.
  install_python moto tests/support/moto.txt
fi
say "ready: $(cargo --version), node $(node --version)"
