#!/bin/sh
# Runs pjdfstest and fsx on a fresh mount in both cache modes, as root. Ends with 1 on a failure that
# docs/posix.md does not list.
#
#   tests/posix.sh [writeback|writethrough]
#
# STILLPOINT  the program (target/release or target/debug)
# TOOLS       where pjdfstest and fsx are or get installed (/tmp/tools)
# OPERATIONS  of each fsx run (20000)
# SEEDS       of the fsx runs ("1 2 3", and one of the time)
# SCRATCH     where the store and the mount go (a new directory in /tmp). Others must be able to enter it, and its
#             path be short: the tests bind sockets, whose paths end at 108 bytes.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
tools=${TOOLS:-/tmp/tools}
operations=${OPERATIONS:-20000}
seeds=${SEEDS:-"1 2 3 $(date +%s)"}
modes=${1:-"writeback writethrough"}
scratch=${SCRATCH:-$(mktemp -d /tmp/posix-XXXXXX)}
program=${STILLPOINT:-}
for candidate in "$here/target/release/stillpoint" "$here/target/debug/stillpoint"; do
    [ -n "$program" ] || [ ! -x "$candidate" ] || program=$candidate
done
[ -x "$program" ] || { echo "no stillpoint program: build it, or set STILLPOINT" >&2; exit 2; }
[ -n "${SCRATCH:-}" ] || chmod 755 "$scratch"
[ "$(id -u)" = 0 ] || { echo "this needs root" >&2; exit 2; }

for tool in pjdfstest fsx; do
    [ -x "$tools/bin/$tool" ] || cargo install "$tool" --locked --root "$tools"
done

mounted=
second=$(mktemp -d /dev/shm/stillpoint-posix-XXXXXX)
finish() {
    [ -z "$mounted" ] || "$program" unmount "$mounted" >/dev/null || umount -l "$mounted" || true
    rm -rf "$second"
    [ -n "${SCRATCH:-}" ] || rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The names after "- " in the section on expected failures, as a TOML list.
expected=$(sed -n '/^## Expected failures/,$s/^- \([a-z0-9_:]*\): .*/"\1",/p' "$here/docs/posix.md" | tr -d '\n')
cat >"$scratch/pjdfstest.toml" <<END
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.01
allow_remount = false
expected_failures = [$expected]

[dummy_auth]
entries = [["nobody", "$(id -gn nobody)"], ["daemon", "$(id -gn daemon)"]]
END
cat >"$scratch/fsx.toml" <<END
flen = 4194304
[opsize]
min = 1
max = 131072
align = 1
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 10.0
mapwrite = 10.0
read = 10.0
write = 10.0
truncate = 4.0
fsync = 1.0
fdatasync = 1.0
posix_fallocate = 2.0
punch_hole = 4.0
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 4.0
END

failed=0
for mode in $modes; do
    store=$scratch/store-$mode
    directory=$scratch/$mode
    mkdir -p "$directory"
    "$program" init "$store" >/dev/null
    "$program" --store "$store" volume create v >/dev/null
    "$program" mount "$store" "$directory" --cache "$mode" >/dev/null
    mounted=$directory
    mkdir "$directory/v/p"

    if ! "$tools/bin/pjdfstest" -c "$scratch/pjdfstest.toml" -p "$directory/v/p" -s "$second" \
        >"$scratch/pjdfstest-$mode.log" 2>&1; then
        failed=1
        grep -A1 'FAILED$' "$scratch/pjdfstest-$mode.log" | head -60
    fi
    echo "$mode: pjdfstest: $(sed -n 's/^Summary: //p' "$scratch/pjdfstest-$mode.log")"

    for seed in $seeds; do
        if "$tools/bin/fsx" -q -f "$scratch/fsx.toml" -N "$operations" -S "$seed" -P "$scratch" \
            "$directory/v/fsx-$seed" >"$scratch/fsx-$mode-$seed.log" 2>&1; then
            echo "$mode: fsx: seed $seed: $operations operations"
        else
            failed=1
            echo "$mode: fsx: seed $seed: FAILED"
            tail -5 "$scratch/fsx-$mode-$seed.log"
        fi
    done

    "$program" unmount "$directory" >/dev/null
    mounted=
done
exit $failed
