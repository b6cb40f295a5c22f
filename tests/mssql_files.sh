#!/bin/sh
# Reads real backup files of SQL Server: headers, chains, page checksums, every flipped byte. Prints the figures.
#
#   tests/mssql_files.sh [FOLDER]
#
# STILLPOINT_MSSQL_DATA  the folder, when none is named. The files are not part of this repository; those that the test
#                        knows by name are the folders DoubleDiffing and RestoreTimeClean of the test data of dbatools.
# PLAN_CASES             generated restore plans that are compared with trying everything (100000)
#
# Ends with 1 when there is no folder: nothing is skipped.
set -eu
cd "$(dirname "$0")/.."

folder=${1:-${STILLPOINT_MSSQL_DATA:-}}
if [ -z "$folder" ] || [ ! -d "$folder" ]; then
    sed -n '4s/^# *//p' "$0" >&2
    echo "no folder of backup files: ${folder:-none named}" >&2
    exit 1
fi
STILLPOINT_MSSQL_DATA=$(realpath "$folder")
export STILLPOINT_MSSQL_DATA
cargo test --test mssql_files -- --nocapture --test-threads 1
STILLPOINT_PLAN_CASES=${PLAN_CASES:-100000} cargo test --lib sqlserver::plan_tests -- --nocapture
