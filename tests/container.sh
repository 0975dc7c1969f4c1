#!/bin/sh
# Runs a command in a root file system like a container's, with processes of its own: what is
# written there is seen by nobody else and gone afterwards. Needs root.
#
#     container.sh COMMAND [ARGUMENT…]
#         this machine's files, and a network of its own
#     container.sh --empty COMMAND [ARGUMENT…]
#         its programs (/usr, and the directories that $BRING lists) and its network, and nothing else
set -eu
umask 022  # as in a container

if [ "${1:-}" != --inside ]; then
    network=$([ "${1:-}" = --empty ] || echo --net)
    exec unshare --mount --pid --fork --kill-child --propagation private $network \
        "$0" --inside "$@"
fi
shift

layers=$(mktemp -d)
mount -t tmpfs -o mode=755 layers "$layers"
root=$layers/root
mkdir "$root"

bring() {  # as it is there, but read-only
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
}

if [ "$1" = --empty ]; then
    shift
    bring /usr
    for path in /bin /sbin /lib /lib32 /lib64 /libx32; do
        if [ -L "$path" ]; then cp -P "$path" "$root$path"; fi
    done
    mkdir -p "$root/etc" "$root/dev" "$root/proc" "$root/run" "$root/root" "$root/var/log/nginx" \
        "$root/var/lib/nginx" "$root/home"
    mkdir -m 1777 "$root/tmp"
    for path in passwd group nsswitch.conf resolv.conf hosts ld.so.cache alternatives ssl; do
        cp -aL "/etc/$path" "$root/etc/"
    done
    for path in "$PWD" $BRING; do
        [ -e "$root$path" ] || bring "$path"
    done
else
    mkdir "$layers/upper" "$layers/work"
    mount -t overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" overlay "$root"
    mount -t tmpfs -o mode=755 run "$root/run"
    # What is on another file system than / does not come with it.
    for path in "$PWD" "$(dirname "$(dirname "$1")")"; do
        [ "$(stat -c %d "$path")" = "$(stat -c %d /)" ] || mount --bind "$path" "$root$path"
    done
    ip link set lo up
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
fi
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot "$root" /usr/bin/env -C "$PWD" "$@"
