#!/usr/bin/env bash
# Fuzzes the gateway's decoders, and prints how often each target ran and which
# part of each decoder's lines was reached.
#
#   gateway/fuzz/run.sh SECONDS [TARGET…]
#
# Fails where a target finds something (the input is kept in artifacts/), and,
# when all targets run, where less than 90 % of a decoder is reached.
set -euo pipefail

seconds=$1
shift
cargo_fuzz_version=0.13.1
least=90
decoders=(eio.rs eio3.rs eio4.rs packet.rs wire.rs mojibake.rs)
all=(eio3_payload eio4_payload socketio_packet websocket_frames)
targets=("${@:-${all[@]}}")

cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target_dir=$root/target/fuzz
# libFuzzer needs flags of the compiler that only later versions promise.
export RUSTC_BOOTSTRAP=1

if ! cargo fuzz --version >/dev/null 2>&1; then
  cargo install --quiet --locked --root "$root/target/tools" --version "$cargo_fuzz_version" cargo-fuzz
fi
PATH=$root/target/tools/bin:$PATH

mkdir -p "$target_dir"
failed=()
echo "Building the targets …"
cargo fuzz build --fuzz-dir . --target-dir "$target_dir" 2>&1 | tail -n 1
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target"
  log=$target_dir/$target.log
  if ! cargo fuzz run --fuzz-dir . --target-dir "$target_dir" "$target" \
    "corpus/$target" "seeds/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 >"$log" 2>&1; then
    failed+=("$target")
    tail -n 40 "$log" >&2
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  printf '%-18s %12s runs in %s s\n' "$target" "${runs:-?}" "$seconds"
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "Found something: ${failed[*]}. Inputs are in gateway/fuzz/artifacts/." >&2
  exit 1
fi

# The same inputs once more, with the lines counted.
counted=$root/target/fuzz-coverage
rm -rf "$counted/raw"
RUSTFLAGS="-C instrument-coverage" LLVM_PROFILE_FILE="$counted/build/%p.profraw" \
  cargo build --quiet --bin replay --target-dir "$counted"
for target in "${targets[@]}"; do
  LLVM_PROFILE_FILE="$counted/raw/$target.profraw" \
    "$counted/debug/replay" "$target" "corpus/$target" "seeds/$target" >/dev/null
done
"$root/deploy/tools/llvm.sh" llvm-profdata >/dev/null
"$("$root/deploy/tools/llvm.sh" llvm-profdata)" merge --sparse \
  "$counted"/raw/*.profraw --output "$counted/all.profdata"
report=$("$("$root/deploy/tools/llvm.sh" llvm-cov)" report "$counted/debug/replay" \
  --instr-profile "$counted/all.profdata" --ignore-filename-regex '/fuzz/src/[^.]|/registry/|/rustc/')

echo
echo "Lines reached:"
poor=()
for decoder in "${decoders[@]}"; do
  # Columns: file, regions (3), functions (3), lines: all, missed, reached in %.
  read -r lines percent < <(awk -v file="$decoder" \
    '{ n = split($1, path, "/") } path[n] == file { print $8, $10 + 0 }' <<<"$report")
  # A single target does not reach every decoder.
  [ "$percent" = 0 ] && [ ${#targets[@]} -lt ${#all[@]} ] && continue
  printf '%-18s %6s %% of %s lines\n' "$decoder" "$percent" "$lines"
  awk -v percent="$percent" -v least="$least" 'BEGIN { exit !(percent < least) }' && poor+=("$decoder")
done
if [ ${#targets[@]} -eq ${#all[@]} ] && [ ${#poor[@]} -gt 0 ]; then
  echo "Less than $least % reached: ${poor[*]}" >&2
  exit 1
fi
