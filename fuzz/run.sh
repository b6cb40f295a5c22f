#!/bin/sh
# Runs fuzz targets for a bounded time: fuzz/run.sh SECONDS [TARGET...]   (all targets when none is named)
#
# Exits 1 when a target finds something; the input is then under fuzz/artifacts/TARGET, and
# `cargo fuzz run TARGET FILE` replays it. Inputs that reach new code are kept in fuzz/corpus.
#
# The product builds on stable Rust; the coverage flags are unstable there, hence RUSTC_BOOTSTRAP. No address
# sanitizer: the code under test is safe Rust, and without it a target runs several times as often.
set -eu

if [ $# -lt 1 ]; then
    sed -n '2s/^# //p' "$0" >&2
    exit 2
fi
seconds=$1
shift
cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked
fi
export RUSTC_BOOTSTRAP=1
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046
    set -- $(cargo fuzz list)
fi

mkdir -p fuzz/artifacts
found=
for target in "$@"; do
    cargo fuzz build --sanitizer none "$target"
    log=fuzz/artifacts/$target.log
    if cargo fuzz run --sanitizer none "$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=512 -malloc_limit_mb=64 -timeout=20 \
        -max_len=65536 -print_final_stats=1 -verbosity=0 >"$log" 2>&1
    then
        echo "$target: no finding in $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
    else
        tail -n 60 "$log" >&2
        found="$found $target"
    fi
done
if [ -n "$found" ]; then
    echo "findings in:$found; see fuzz/artifacts" >&2
    exit 1
fi
