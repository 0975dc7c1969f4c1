#!/bin/sh
# Runs a command in a root file system like a container's: this machine's programs and files,
# but what is written there is seen by nobody else and gone afterwards, with a network and
# processes of its own. Needs root.
#
#     container.sh COMMAND [ARGUMENT…]
set -eu

if [ "${1:-}" != --inside ]; then
    exec unshare --mount --net --pid --fork --kill-child --propagation private "$0" --inside "$@"
fi
shift

layers=$(mktemp -d)
mount -t tmpfs -o mode=755 layers "$layers"
root=$layers/root
mkdir "$layers/upper" "$layers/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" overlay "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 run "$root/run"
# What is on another file system than / does not come with it.
for path in "$PWD" "$(dirname "$(dirname "$1")")"; do
    [ "$(stat -c %d "$path")" = "$(stat -c %d /)" ] || mount --bind "$path" "$root$path"
done
ip link set lo up
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
exec chroot "$root" /usr/bin/env -C "$PWD" "$@"
