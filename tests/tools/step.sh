#!/usr/bin/env bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# step.sh NAME: run one step of "./dev test", after its set-up. Exit status 77: it could not run, see NAME.reason.

set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
STEP=$1
source "$ROOT/tests/tools/environment.sh"
source "$ROOT/tests/tools/venv.sh"
source "$ROOT/tests/tools/collection.sh"
export NO_COLOR=1

main() {
    mkdir -p "$HOME"
    link_pip_settings
    unpack_collection
    cd "$COLLECTION"
    case $STEP in
    core-*) other_core "${STEP#core-}" ;;
    *) "step_${STEP//-/_}" ;;
    esac
}

step_changelog() {
    sessions changelog
}

step_reuse() {
    REUSE_ENCODING_MODULE=charset_normalizer sessions license-check
}

step_mypy() {
    sessions typing
}

step_docs() {
    local venv=$CACHE/venv-docs
    make_venv "$venv" "$SYSTEM_PYTHON" "$TOOLS/requirements-docs.txt"
    PATH=$venv/bin:$PATH sessions docs-check
}

step_lint() {
    sessions ansible-lint shellcheck lint
}

step_sanity() {
    sessions sanity
}

step_units() {
    sessions units
}

# The library runs on nodes, whose Python may be older than that of any controller.
step_units_py39() {
    local interpreter
    interpreter=$(find_python 3.9) || cannot_run "no Python 3.9 with venv and pip is installed"
    export PATH=$PATH:${interpreter%/*}
    sessions sanity -- --test compile --python 3.9
    sessions sanity -- --test import --python 3.9
    sessions units -- --venv --python 3.9
}

step_integration() {
    local target
    local targets
    mapfile -t targets < <(find tests/integration/targets -mindepth 1 -maxdepth 1 ! -name 'setup_*' -printf '%f\n')
    (($#)) || set -- "${targets[@]}"
    "$TOOLS/private.sh" ansible-test integration --python default --allow-destructive --allow-root --color no "$@" 2>&1 |
        tee "$LOGS/$STEP.targets"
    # ansible-test skips targets without failing.
    for target in "$@"; do
        grep -qF "Running $target integration test" "$LOGS/$STEP.targets" || { echo "$target did not run" && exit 1; }
    done
}

# Check that the artifact can be installed and works with nothing but its run-time folders.
step_artifact() {
    local built=$CACHE/artifact installed=$CACHE/artifact/installed folder file
    rm -rf -- "$built"
    mkdir -p "$installed"
    ansible-galaxy collection build --output-path "$built" .
    file=$(echo "$built"/evenflow-l4lb-*.tar.gz)
    ANSIBLE_COLLECTIONS_PATH=$installed ansible-galaxy collection install --offline --no-deps \
        --collections-path "$installed" "$file"
    folder=$installed/ansible_collections/evenflow/l4lb
    find "$folder" -mindepth 1 -maxdepth 1 \
        ! -name meta ! -name plugins ! -name roles ! -name playbooks ! -name MANIFEST.json ! -name FILES.json \
        -exec rm -rf -- {} +
    (
        export ANSIBLE_COLLECTIONS_PATH=$installed
        cd "$installed"
        local modules
        modules=("$folder"/plugins/modules/*.py)
        modules=("${modules[@]##*/}")
        modules=("${modules[@]%.py}")
        modules=("${modules[@]/#/evenflow.l4lb.}")
        ansible-doc --type module --json "${modules[@]}" | "$VENV/bin/python" "$TOOLS/expect_docs.py" "${modules[@]}"
        ansible-doc --type role --json evenflow.l4lb.lb_node | "$VENV/bin/python" "$TOOLS/expect_docs.py" \
            evenflow.l4lb.lb_node
        ansible-playbook --syntax-check --inventory localhost, evenflow.l4lb.site
        "$TOOLS/private.sh" ansible --inventory localhost, --connection local --module-name evenflow.l4lb.lb_info \
            --extra-vars "ansible_python_interpreter=$VENV/bin/python" localhost
    )
    import_artifact "$file"
}

# Run two labs side by side; each takes the next file of tests when it has finished a file.
step_lab() {
    lab_tests --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'not quiet'
}

# Run the tests that must not be disturbed; no other step runs beside this step.
step_lab_quiet() {
    lab_tests -m quiet
}

# Run the tests that depend on the version of nft or of other programs of the nodes' Debian.
step_lab_trixie() {
    EVENFLOW_LAB_SUITE=trixie lab_tests -m 'nft and not quiet'
}

step_lab_trixie_all() {
    export EVENFLOW_LAB_SUITE=trixie
    step_lab
    step_lab_quiet
}

# Run the rows that depend on the kernel on the stock kernels of Debian 12 and 13, in two virtual machines side by side.
step_kernels() {
    kernels -m 'not long'
}

step_kernels_long() {
    kernels -m long
}

# Run the longer tests of maintenance: larger labs, and an image with more packages.
step_night() {
    lab_pytest -rP tests/lab/test_night.py
}

step_molecule() {
    export ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true
    trap 'labs_down "${EVENFLOW_LAB:-evenflow}-molecule"' EXIT
    molecule test --scenario-name default
    molecule test --scenario-name rolling
}

# galaxy-importer logs errors and still succeeds, so check its log too.
import_artifact() {
    local log=$LOGS/galaxy-importer.log
    (cd "$CACHE/artifact" && GALAXY_IMPORTER_CONFIG=$TOOLS/galaxy-importer.cfg \
        "$VENV/bin/python" -m galaxy_importer.main "$1") 2>&1 | tee "$log"
    if grep -E '^(ERROR|WARNING)' "$log"; then return 1; fi
}

# Run the checks with another supported ansible-core, on the newest installed interpreter that it supports.
other_core() {
    local core=$1 interpreter='' version
    local -A pythons=([2.19]='3.13 3.12 3.11' [2.20]='3.14 3.13 3.12' [2.21]='3.14 3.13 3.12')
    if [[ $(ansible-test --version) == "ansible-test version $core."* ]]; then
        cannot_run "the other steps run with ansible-core $core already"
    fi
    for version in ${pythons[$core]}; do
        if interpreter=$(find_python "$version"); then break; fi
    done
    [[ -n $interpreter ]] || cannot_run "ansible-core $core needs Python ${pythons[$core]// / or }; none is installed"

    VENV=$CACHE/venv-core-$core
    printf 'ansible-core~=%s.0\n' "$core" | cat - "$TOOLS/requirements-core.txt" >"$LOGS/$STEP.requirements.txt"
    make_venv "$VENV" "$interpreter" "$LOGS/$STEP.requirements.txt"
    export PATH=$VENV/bin:$PATH
    ansible --version
    step_sanity
    step_units
    # Run the targets about modules under Ansible; the others test the node and do not depend on the core.
    step_integration lb_config lb_drain lb_fleet lb_info
}

lab_tests() {
    lab_pytest --durations=60 --ignore=tests/lab/test_night.py "$@" tests/lab
}

# kernels ARGUMENTS: run pytest with these arguments on each stock kernel.
kernels() {
    (cd "$ROOT" && PYTHONPATH=$PYTHONPATH:$COLLECTIONS "$VENV/bin/python" -m kernels -- --durations=10 "$@")
}

# Run pytest on labs of this step, which are taken down however it ends.
lab_pytest() {
    cd "$ROOT"
    export EVENFLOW_LAB=${EVENFLOW_LAB:-evenflow}-$STEP PYTHONPATH=$PYTHONPATH:$COLLECTIONS
    trap 'labs_down "$EVENFLOW_LAB" "$EVENFLOW_LAB"-gw{0,1} "${EVENFLOW_LAB:0:20}-absent"' EXIT
    "$VENV/bin/python" -m pytest -p no:cacheprovider -v "$@"
}

labs_down() {
    local lab
    for lab in "$@"; do "$VENV/bin/python" -m lab --lab "$lab" down; done
}

# sessions NAME... [-- ARGUMENTS]: run sessions of noxfile.py in the environment of this step.
sessions() {
    # Where CI is set, formatters only check.
    CI=true "$NOX/bin/nox" --no-venv --stop-on-first-error --noxfile noxfile.py --envdir "$WORK/nox" --session "$@"
}

cannot_run() {
    printf '%s\n' "$1" | tee "$LOGS/$STEP.reason"
    exit 77
}

main
