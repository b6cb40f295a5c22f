# Ends a mount whose process was killed while a thread of it waited for an answer of its own mount: the thread cannot
# end before it is answered, and the kernel does not end the connection before the thread does. Seen as a process that
# has ended but for some of its threads. Arguments: PID DIRECTORY
pid=$1 directory=$2 stuck=0
while read -r stat <"/proc/$pid/stat"; do
    case "${stat##*) }" in
    [ZX]*)
        set -- "/proc/$pid/task/"*
        [ $# -gt 1 ] || exit 0
        stuck=$((stuck + 1))
        ;;
    *) stuck=0 ;;
    esac
    if [ $stuck -ge 3 ]; then
        umount -f "$directory"
        umount -l "$directory"
        exit 0
    fi
    sleep 1
done
