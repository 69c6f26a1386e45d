#!/usr/bin/env bash
# Installs the programs named on the command line that this machine lacks.
#
#   deploy/tools/need.sh redis-server haproxy chromium
#
# Knows: c++ cc cargo chromium curl fonts-cjk fonts-emoji haproxy llvm node npm
# python3 python3-venv redis-cli redis-server. What is there already is left alone; what
# is missing comes from the system's package manager, as root or by `sudo -n`.
# Where neither works, it prints the line to run and fails.
set -euo pipefail

tools=$(dirname "$0")
rust_at_least=1.94
node_at_least=18

on_path() { command -v "$1" >/dev/null 2>&1; }

# True if the first version is the second or later.
reaches() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

node_reaches() {
  on_path node && reaches "$(node --version 2>/dev/null | tr -d v)" "$node_at_least"
}

font_for() {
  on_path fc-list && [ -n "$(fc-list "$1" family 2>/dev/null)" ]
}

has() {
  case $1 in
    c++) on_path c++ || on_path g++ || on_path clang++ ;;
    cc) on_path cc || on_path gcc || on_path clang ;;
    cargo) on_path cargo && reaches "$(cargo --version 2>/dev/null | cut -d ' ' -f 2)" "$rust_at_least" ;;
    chromium) on_path chromium || on_path chromium-browser || on_path google-chrome || [ -x "${CHROMIUM:-}" ] ;;
    fonts-cjk) font_for ':lang=ja' && font_for ':lang=zh-cn' ;;
    fonts-emoji) font_for ':lang=und-zsye' ;;
    llvm) "$tools/llvm.sh" llvm-cov >/dev/null && "$tools/llvm.sh" llvm-profdata >/dev/null ;;
    node) node_reaches ;;
    python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
    curl | haproxy | npm | python3 | redis-cli | redis-server) on_path "$1" ;;
    *)
      echo "need.sh: does not know \`$1\`" >&2
      exit 2
      ;;
  esac
}

manager() {
  local each
  for each in apt-get dnf apk brew; do
    if on_path "$each"; then
      echo "$each"
      return
    fi
  done
}

# What a manager calls a program.
package() {
  case "$1:$2" in
    apt-get:c++ | apt-get:cc) echo build-essential ;;
    apt-get:fonts-cjk) echo fontconfig fonts-noto-cjk ;;
    apt-get:fonts-emoji) echo fontconfig fonts-noto-color-emoji ;;
    apt-get:llvm) echo "llvm-$("$tools/llvm.sh" version)" ;;
    apt-get:node) echo nodejs ;;
    apt-get:redis-cli) echo redis-tools ;;
    dnf:c++) echo gcc-c++ ;;
    dnf:cc) echo gcc make ;;
    dnf:fonts-cjk) echo fontconfig google-noto-sans-cjk-fonts ;;
    dnf:fonts-emoji) echo fontconfig google-noto-color-emoji-fonts ;;
    dnf:node) echo nodejs ;;
    dnf:npm) echo nodejs-npm ;;
    dnf:python3-venv) echo python3-pip ;;
    dnf:redis-cli | dnf:redis-server) echo redis ;;
    apk:c++ | apk:cc) echo build-base ;;
    apk:fonts-cjk) echo fontconfig font-noto-cjk ;;
    apk:fonts-emoji) echo fontconfig font-noto-emoji ;;
    apk:llvm) echo "llvm$("$tools/llvm.sh" version)" ;;
    apk:node) echo nodejs ;;
    apk:python3-venv) echo py3-pip ;;
    apk:redis-cli | apk:redis-server) echo redis ;;
    brew:c++ | brew:cc) echo gcc ;;
    brew:fonts-cjk) echo fontconfig font-noto-sans-cjk ;;
    brew:fonts-emoji) echo fontconfig font-noto-color-emoji ;;
    brew:npm) echo node ;;
    brew:python3 | brew:python3-venv) echo python ;;
    brew:redis-cli | brew:redis-server) echo redis ;;
    *) echo "$2" ;;
  esac
}

# The commands that install packages, one a line.
commands() {
  local manager=$1
  shift
  case $manager in
    apt-get)
      echo "apt-get update -q"
      echo "env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -qy --no-install-recommends $*"
      ;;
    dnf) echo "dnf install -qy $*" ;;
    apk) echo "apk add --quiet $*" ;;
    brew) echo "brew install $*" ;;
  esac
}

missing=()
for name in "$@"; do
  # Not in a condition of its own, so that an unknown name ends the script.
  has "$name" && continue
  missing+=("$name")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

# Rust comes from its own installer: distributions are years behind.
case " ${missing[*]} " in
  *" cargo "*)
    echo "Rust $rust_at_least or later is needed. Install it as https://rustup.rs says," >&2
    echo "or, where rustup is there already: rustup update stable" >&2
    exit 1
    ;;
esac

manager=$(manager)
if [ -z "$manager" ]; then
  echo "Missing: ${missing[*]}. No package manager known here; please install them." >&2
  exit 1
fi

packages=()
for name in "${missing[@]}"; do
  for each in $(package "$manager" "$name"); do
    packages+=("$each")
  done
done

as_root=()
if [ "$manager" != brew ] && [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "Missing: ${missing[*]}. Please run:" >&2
    commands "$manager" "${packages[@]}" | sed 's/^/  sudo /' >&2
    exit 1
  fi
  as_root=(sudo -n)
fi

echo "Installing ${packages[*]} …"
while read -r -a command; do
  ${as_root[@]+"${as_root[@]}"} "${command[@]}" </dev/null
done < <(commands "$manager" "${packages[@]}")

still=()
for name in "${missing[@]}"; do
  has "$name" && continue
  still+=("$name")
done
if [ ${#still[@]} -gt 0 ]; then
  echo "Installed, and yet missing or too old: ${still[*]}" >&2
  case " ${still[*]} " in
    *" node "*) echo "Node $node_at_least or later is needed: https://nodejs.org/" >&2 ;;
  esac
  exit 1
fi
