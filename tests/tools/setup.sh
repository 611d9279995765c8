# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

source "$TOOLS/packages.sh"
source "$TOOLS/venv.sh"

# set_up [STEP...]: install the missing packages; if none is missing, use neither apt nor the package index. Without
# root, fail if Debian packages that the steps need are missing.
set_up() {
    mkdir -p "$CACHE" "$HOME" "$LOGS"
    link_pip_settings
    exec 8>"$CACHE/.lock"
    flock 8
    if ((EUID == 0)); then install_packages; else expect_packages "$@"; fi
    make_venv "$VENV" "$SYSTEM_PYTHON" "$TOOLS/requirements.txt"
    make_venv "$NOX" "$SYSTEM_PYTHON" "$TOOLS/requirements-nox.txt"
    exec 8>&-
}

# Prevent two commands with the same cache from replacing each other's copy of the collection.
hold_cache() {
    exec 9>"$CACHE/.running"
    if ! flock --nonblock 9; then
        echo "another ./dev works with $CACHE: wait for it, or set EVENFLOW_CACHE" >&2
        exit 1
    fi
}
