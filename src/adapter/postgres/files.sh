# Prepares a cluster's files, as the server's own user: what lies in its folder may be links that its superuser made,
# and they must lead no further than that user could go anyway.
# Arguments: DATA WORD [ARGUMENT...], where WORD is
#   clean                  takes away what came with a copy of a running or stopped server
#   slots                  forgets replication slots, and what of the WAL was kept elsewhere
#   put NAME               replaces a file by what comes on stdin
#   drop NAME              removes a file
#   tablespaces FOLDER     points every tablespace at its own folder in FOLDER
#   cut PATH KEPT LENGTH   zeroes a WAL segment behind a byte; a link becomes a copy
#   fetch HOW TO FROM      copies or links the files that come by name on stdin into a folder of the volume
#   forget FOLDER          removes the files that come by name on stdin
#   outside FOLDER         lists tablespaces that are not in FOLDER
set -eu
data=$1 word=$2
shift 2
cd "$data"
for folder in pg_wal pg_wal/archive_status pg_tblspc pg_replslot; do
    # A superuser's link would lead this script, which no namespace confines, to somebody else's files.
    [ ! -L "$folder" ] || { echo "$data/$folder is a link, and must be a folder" >&2; exit 1; }
done
case "$word" in
clean)
    rm -f postmaster.pid postmaster.opts standby.signal recovery.signal recovery.conf postgresql.auto.conf
    : >postgresql.auto.conf
    chmod 600 postgresql.auto.conf
    ;;
slots)
    find pg_replslot pg_wal/archive_status -mindepth 1 -delete
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
        rm -f "$1"
    else
        if [ -L "$1" ]; then
            cp "$1" "$1.copy"
            mv "$1.copy" "$1"
        fi
        truncate -s "$2" "$1"
        truncate -s "$3" "$1"
        sync "$1"
    fi
    ;;
fetch)
    while read -r name; do
        case "$1" in
        # One that was removed meanwhile is among the kept.
        copy) cp "$3/$name" "$2/$name" || [ ! -e "$3/$name" ] ;;
        link) ln -sf "$3/$name" "$2/$name" ;;
        esac
    done
    ;;
forget)
    while read -r name; do rm -f "$1/$name"; done
    ;;
outside)
    for link in pg_tblspc/*; do
        [ -L "$link" ] || [ -e "$link" ] || continue
        to=$(readlink "$link")
        case "$to" in "$1"/*) ;; *) echo "$to" ;; esac
    done
    ;;
esac
