# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# make_venv FOLDER INTERPRETER REQUIREMENTS_FILE: make a virtual environment, unless it is there for the same arguments.
make_venv() {
    local folder=$1 interpreter=$2 requirements=$3 stamp
    stamp=$({ readlink -f "$interpreter" && "$interpreter" -V && cat "$requirements"; } | sha256sum)
    [[ -f $folder/.stamp && $(<"$folder/.stamp") == "$stamp" ]] && return
    echo "set-up: Python packages into $folder" >&2
    [[ -x $folder/bin/python && $("$folder/bin/python" -V) == "$("$interpreter" -V)" ]] || rm -rf -- "$folder"
    "$interpreter" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --requirement "$requirements"
    printf '%s\n' "$stamp" >"$folder/.stamp"
}

# find_python VERSION: print the path of a working interpreter of that minor version; fail if there is none.
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

# Print the interpreters of pyenv, the newest first. Its shims are not interpreters, so use its real paths.
pyenv_pythons() {
    local version=$1 manager full
    manager=$(PATH=$EVENFLOW_USER_PATH command -v pyenv) || return 0
    HOME=$EVENFLOW_USER_HOME "$manager" versions --bare | grep -E "^${version/./\\.}\.[0-9]+$" | sort -rV |
        while read -r full; do
            printf '%s/bin/python%s\n' "$(HOME=$EVENFLOW_USER_HOME "$manager" prefix "$full")" "$version"
        done
}

# HOME is replaced, so link the settings of pip, such as the package index, from the caller's home folder.
link_pip_settings() {
    local settings
    for settings in .pip .config/pip; do
        if [[ -e $EVENFLOW_USER_HOME/$settings && ! -e $HOME/$settings ]]; then
            mkdir -p "$(dirname -- "$HOME/$settings")"
            ln -sfn -- "$EVENFLOW_USER_HOME/$settings" "$HOME/$settings"
        fi
    done
}
