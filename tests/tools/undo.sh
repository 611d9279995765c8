# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Restore the machine as it was before the first command; the clone stays.
undo() {
    if [[ -d $CACHE ]]; then
        hold_cache
        take_lab_down
        remove_packages
    fi
    rm -rf --one-file-system -- "$CACHE"
}

take_lab_down() {
    local python=$VENV/bin/python
    [[ -x $python ]] || python=$SYSTEM_PYTHON
    [[ -x $python && -d $ROOT/tests/lab ]] || return 0
    "$python" -m lab down --all
}
