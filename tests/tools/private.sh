#!/usr/bin/env bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# private.sh COMMAND...: run it in a separate network namespace, and discard what it writes to /etc, /var/lib and /run.

set -euo pipefail

if [[ $1 != --inside ]]; then
    exec unshare --net --mount --propagation private -- "$0" --inside "$@"
fi
shift

# A lab that runs at the same time cannot take down what is mounted in this namespace too.
awk -v store="$EVENFLOW_CACHE/podman/" 'index($5, store) == 1 || index($5, "/run/netns/") == 1 { print $5 }' \
    /proc/self/mountinfo | tac | while read -r point; do umount --lazy -- "$point"; done

scratch=$EVENFLOW_CACHE/private
mkdir -p "$scratch"
mount -t tmpfs tmpfs "$scratch"
for folder in etc var/lib run; do
    mkdir -p "$scratch/$folder/upper" "$scratch/$folder/work"
    mount -t overlay overlay "/$folder" \
        -o "lowerdir=/$folder,upperdir=$scratch/$folder/upper,workdir=$scratch/$folder/work"
done
ip link set lo up
exec "$@"
