# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

source "$TOOLS/packages.sh"
source "$TOOLS/venv.sh"

# Installs what is absent; touches neither apt nor the package index when nothing is.
set_up() {
    mkdir -p "$CACHE" "$HOME" "$LOGS"
    link_pip_settings
    exec 8>"$CACHE/.lock"
    flock 8
    install_packages
    make_venv "$VENV" "$SYSTEM_PYTHON" "$TOOLS/requirements.txt"
    exec 8>&-
}

# Keeps this clone's commands from pulling the collection copy from under each other.
hold_cache() {
    exec 9>"$CACHE/.running"
    if ! flock --nonblock 9; then
        echo "another ./dev works with $CACHE: wait for it, or set EVENFLOW_CACHE" >&2
        exit 1
    fi
}

# The caller's package index must hold although HOME is ours.
link_pip_settings() {
    local settings
    for settings in .pip .config/pip; do
        if [[ -e $EVENFLOW_USER_HOME/$settings && ! -e $HOME/$settings ]]; then
            mkdir -p "$(dirname -- "$HOME/$settings")"
            ln -sfn -- "$EVENFLOW_USER_HOME/$settings" "$HOME/$settings"
        fi
    done
}
