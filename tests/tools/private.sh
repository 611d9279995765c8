#!/usr/bin/env bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# private.sh COMMAND...: runs it in a network of its own, with writes to /etc, /var/lib and /run thrown away.

set -euo pipefail

if [[ $1 != --inside ]]; then
    exec unshare --net --mount --propagation private -- "$0" --inside "$@"
fi
shift

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
