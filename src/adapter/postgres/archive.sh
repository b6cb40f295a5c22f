# Keeps a finished WAL file: whole and durable under its name, or not at all. The same file again is no error.
# Arguments: FOLDER PATH NAME
set -eu
to=$1/$3
if [ -e "$to" ]; then
    cmp -s "$2" "$to" && exit 0
    echo "$to is there already, and differs from $2" >&2
    exit 1
fi
cp "$2" "$1/.new-$3"
sync "$1/.new-$3"
mv "$1/.new-$3" "$to"
sync "$1"
