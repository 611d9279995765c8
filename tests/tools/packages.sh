# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

PACKAGES_RECORD=$CACHE/apt
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='evenflow: no service starts during package installation'

install_packages() {
    local absent
    record_installed
    mapfile -t absent < <(absent_packages)
    ((${#absent[@]})) || return 0
    echo "set-up: Debian packages ${absent[*]}" >&2
    mkdir -p "$PACKAGES_RECORD"
    enabled_units >"$PACKAGES_RECORD/units"
    installed_packages >"$PACKAGES_RECORD/before"
    (
        trap allow_services EXIT
        forbid_services
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends -o Dpkg::Use-Pty=0 "${absent[@]}" >"$LOGS/apt.log" 2>&1 ||
            { tail -n 30 "$LOGS/apt.log" >&2 && exit 1; }
    )
    record_installed
}

# Remove the packages that install_packages installed, unless another package that was installed later needs them.
remove_packages() {
    record_installed
    [[ -s $PACKAGES_RECORD/installed ]] || return 0
    local ours extra
    mapfile -t ours < <(comm -12 <(sort -u "$PACKAGES_RECORD/installed") <(installed_packages))
    ((${#ours[@]})) || return 0
    extra=$(comm -13 <(printf '%s\n' "${ours[@]}" | sort) \
        <(apt-get -s purge "${ours[@]}" | awk '$1 == "Purg" || $1 == "Remv" { print $2 }' | sort -u))
    if [[ -n $extra ]]; then
        echo "packages stay, because ${extra//$'\n'/, } now needs them; to remove them: apt-get purge ${ours[*]}" >&2
        return 0
    fi
    echo "undo: removes ${#ours[@]} Debian packages" >&2
    DEBIAN_FRONTEND=noninteractive apt-get -qq purge --yes -o Dpkg::Use-Pty=0 "${ours[@]}" >/dev/null
}

# Fail if a package that the named steps need is missing, for a user who cannot install packages.
expect_packages() {
    local absent
    mapfile -t absent < <(absent_packages all "$@")
    ((${#absent[@]})) || return 0
    echo "Debian packages are missing: ${absent[*]}; install them, or run this as root" >&2
    exit 2
}

# absent_packages [STEP...]: print the missing packages that these steps need; without names, those of all commands.
absent_packages() {
    local needed
    mapfile -t needed < <(
        sed '/^#/d; /^$/d' "$TOOLS/packages.txt" | while IFS=: read -r users packages; do
            if (($# == 0)) || [[ -n $(comm -12 <(printf '%s\n' "$@" | sort) <(tr ' ' '\n' <<<"$users" | sort)) ]]; then
                tr -s ' ' '\n' <<<"$packages" | sed '/^$/d'
            fi
        done | sort -u
    )
    comm -23 <(printf '%s\n' "${needed[@]}") <(installed_packages)
}

installed_packages() {
    dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u
}

# Record the packages that were installed since the file "before" was written, also by an interrupted installation.
record_installed() {
    [[ -f $PACKAGES_RECORD/before ]] || return 0
    allow_services
    disable_new_units
    comm -13 "$PACKAGES_RECORD/before" <(installed_packages) >>"$PACKAGES_RECORD/installed"
    rm -- "$PACKAGES_RECORD/before"
}

forbid_services() {
    [[ -e $POLICY ]] || { printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >"$POLICY" && chmod 755 "$POLICY"; }
}

allow_services() {
    if grep -qsF "$POLICY_MARK" "$POLICY"; then rm -- "$POLICY"; fi
}

enabled_units() {
    find /etc/systemd -type l 2>/dev/null | sort
}

disable_new_units() {
    comm -13 "$PACKAGES_RECORD/units" <(enabled_units) | while read -r link; do rm -- "$link"; done
}
