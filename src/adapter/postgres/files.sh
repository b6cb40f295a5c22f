# Prepares a cluster's files, as the server's own user: what lies in its folder may be links that its superuser made,
# and they must lead no further than that user could go anyway.
# Arguments: DATA WORD [ARGUMENT...], where WORD is
#   clean                  takes away what came with a copy of a running or stopped server
#   slots                  forgets replication slots
#   put NAME               replaces a file by what comes on stdin
#   drop NAME              removes a file
#   tablespaces FOLDER     points every tablespace at its own folder in FOLDER
#   cut NAME KEPT LENGTH   zeroes a WAL segment behind a byte
#   outside FOLDER         lists tablespaces that are not in FOLDER
set -eu
data=$1 word=$2
shift 2
cd "$data"
case "$word" in
clean)
    rm -f postmaster.pid postmaster.opts standby.signal recovery.signal recovery.conf postgresql.auto.conf
    : >postgresql.auto.conf
    chmod 600 postgresql.auto.conf
    ;;
slots)
    find pg_replslot -mindepth 1 -delete
    ;;
put)
    rm -f "$1"
    umask 077
    cat >"$1"
    sync "$1"
    ;;
drop)
    rm -f "$1"
    ;;
tablespaces)
    for link in pg_tblspc/*; do
        [ -L "$link" ] || [ -e "$link" ] || continue
        oid=${link##*/}
        [ -d "$1/$oid" ] || { echo "tablespace $oid has no folder in the volume" >&2; exit 1; }
        rm "$link"
        ln -s "$1/$oid" "$link"
    done
    ;;
cut)
    if [ "$2" = 0 ]; then
        rm -f "pg_wal/$1"
    else
        truncate -s "$2" "pg_wal/$1"
        truncate -s "$3" "pg_wal/$1"
        sync "pg_wal/$1"
    fi
    ;;
outside)
    for link in pg_tblspc/*; do
        [ -L "$link" ] || [ -e "$link" ] || continue
        to=$(readlink "$link")
        case "$to" in "$1"/*) ;; *) echo "$to" ;; esac
    done
    ;;
esac
