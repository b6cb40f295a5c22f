# Runs a server in a mount namespace of its own, in which only its volume, its sockets' folder and what the kernel
# keeps below /dev, /proc and /sys can be written: a record that names a folder of production cannot reach it. Other
# servers' state folders, which hold passwords, and the host's own socket folder are not there. In its process and IPC
# namespaces there is no other server either, so that none of the same user can be looked into, traced or ended.
# Arguments: VOLUME STATE SOCKETS UID GID [FROM TO]... -- PROGRAM ARGUMENTS...
set -eu
volume=$1 state=$2 sockets=$3 uid=$4 gid=$5
shift 5
mount --bind "$volume" "$volume"
mount -t proc -o nosuid,nodev,noexec proc /proc
[ ! -d /dev/shm ] || mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
cd "$state"
mount -t tmpfs -o mode=755 tmpfs "${state%/*}"
mkdir "$state"
# The folder as it was: not looked up again by its name, which is the new one's.
mount -c --bind . "$state"
mount --bind "$sockets" "$sockets"
[ ! -d /run/postgresql ] || mount -t tmpfs -o mode=755 tmpfs /run/postgresql
binds="|$volume|$sockets|"
while [ "$1" != -- ]; do
    mkdir -p "$2"
    mount --bind "$1" "$2"
    binds="$binds$2|"
    shift 2
done
shift
while read -r _ _ _ _ point _; do
    point=$(printf '%b' "$point")
    case "$point" in /dev | /dev/* | /proc | /proc/* | /sys | /sys/*) continue ;; esac
    case "$binds" in *"|$point|"*) continue ;; esac
    # A mount whose server died or hangs, or that another one hides, can be written by nobody.
    timeout 5 stat -f "$point" >/dev/null 2>&1 || continue
    mount -o remount,bind,ro "$point"
done </proc/self/mountinfo
cd /
# Not in the place of this shell, which is the first process here: that one gets the children of the others, and a
# postmaster takes the end of a child that it does not know for a crash.
setpriv --reuid="$uid" --regid="$gid" --clear-groups --no-new-privs -- "$@" &
set +e
wait $!
exit $?
