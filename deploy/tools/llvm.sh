#!/usr/bin/env bash
# Prints where a tool of LLVM is that reads what this rustc writes.
#
#   deploy/tools/llvm.sh llvm-cov
#
# A tool reads what its own version writes and what older ones wrote. Prints the
# version that is needed with `version` instead of a name.
set -euo pipefail

needed=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
name=$1
if [ "$name" = version ]; then
  echo "$needed"
  exit 0
fi

host=$(rustc -vV | sed -n 's/^host: //p')
places=(
  "$(rustc --print sysroot)/lib/rustlib/$host/bin/$name"
  "$(command -v "$name-$needed" || true)"
  "/usr/lib/llvm-$needed/bin/$name"
  "/usr/lib/llvm$needed/bin/$name"
  "$(command -v "$name" || true)"
)
if command -v brew >/dev/null 2>&1; then
  places+=("$(brew --prefix llvm 2>/dev/null || true)/bin/$name")
fi
for place in "${places[@]}"; do
  [ -n "$place" ] && [ -x "$place" ] || continue
  version=$("$place" --version | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p' | head -n 1)
  if [ "${version:-0}" -ge "$needed" ]; then
    echo "$place"
    exit 0
  fi
done
exit 1
