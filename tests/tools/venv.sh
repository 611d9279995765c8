# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# make_venv FOLDER INTERPRETER REQUIREMENTS_FILE: leaves a virtual environment that holds exactly this wish.
make_venv() {
    local folder=$1 interpreter=$2 requirements=$3 wanted
    wanted=$({ readlink -f "$interpreter" && "$interpreter" -V && cat "$requirements"; } | sha256sum)
    [[ -f $folder/.stamp && $(<"$folder/.stamp") == "$wanted" ]] && return
    echo "set-up: Python packages into $folder" >&2
    [[ -x $folder/bin/python && $("$folder/bin/python" -V) == "$("$interpreter" -V)" ]] || rm -rf -- "$folder"
    "$interpreter" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --requirement "$requirements"
    printf '%s\n' "$wanted" >"$folder/.stamp"
}

# find_python VERSION: prints the path of a working interpreter of that minor version; fails where there is none.
find_python() {
    local version=$1 candidate
    while read -r candidate; do
        if [[ -x $candidate ]] && "$candidate" -c 'import ensurepip, ssl, sqlite3, venv' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done < <(
        printf '%s\n' "/usr/bin/python$version" "/usr/local/bin/python$version"
        pyenv_pythons "$version"
    )
    return 1
}

# Newest first. The version manager is asked for real paths, because its shims are not interpreters.
pyenv_pythons() {
    local version=$1 manager full
    manager=$(PATH=$EVENFLOW_USER_PATH command -v pyenv) || return 0
    HOME=$EVENFLOW_USER_HOME "$manager" versions --bare | grep -E "^${version/./\\.}\.[0-9]+$" | sort -rV |
        while read -r full; do
            printf '%s/bin/python%s\n' "$(HOME=$EVENFLOW_USER_HOME "$manager" prefix "$full")" "$version"
        done
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
