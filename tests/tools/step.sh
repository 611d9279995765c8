#!/usr/bin/env bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# step.sh NAME: one step of "./dev test", after its set-up. Exit status 77: could not run, the reason is in NAME.reason.

set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
source "$ROOT/tests/tools/environment.sh"
source "$ROOT/tests/tools/venv.sh"
source "$ROOT/tests/tools/collection.sh"
STEP=$1
export NO_COLOR=1

main() {
    unpack_collection
    cd "$COLLECTION"
    case $STEP in
    core-*) other_core "${STEP#core-}" ;;
    *) "step_${STEP//-/_}" ;;
    esac
}

step_changelog() {
    antsibull-changelog lint
    antsibull-changelog lint-changelog-yaml changelogs/changelog.yaml
    antsibull-changelog generate --output "$LOGS/CHANGELOG.md" --output-format md
    diff -u CHANGELOG.md "$LOGS/CHANGELOG.md"
}

step_reuse() {
    REUSE_ENCODING_MODULE=charset_normalizer reuse lint
}

step_mypy() {
    cd "$COLLECTIONS"
    mypy --config-file "$COLLECTION/pyproject.toml" --strict \
        --package ansible_collections.evenflow.l4lb.plugins.module_utils \
        --package ansible_collections.evenflow.l4lb.plugins.action \
        --package ansible_collections.evenflow.l4lb.plugins.filter
}

step_docs() {
    local venv=$CACHE/venv-docs
    make_venv "$venv" "$SYSTEM_PYTHON" "$TOOLS/requirements-docs.txt"
    PATH=$venv/bin:$PATH antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs all .
}

step_lint() {
    ansible-lint --offline --profile production
    ruff check --no-cache .
    ruff format --no-cache --check .
    shellcheck --external-sources --source-path "$COLLECTION:$COLLECTION/tests/tools" dev .ci/run tests/tools/*.sh
}

step_sanity() {
    bootstrap_pip
    ansible-test sanity --python default --color no
}

step_units() {
    run_units --python default
}

# The library runs on nodes, whose Python may be older than any controller's.
step_units_py39() {
    local interpreter
    interpreter=$(find_python 3.9) || cannot_run "no Python 3.9 with venv and pip here"
    bootstrap_pip
    export PATH=$PATH:${interpreter%/*}
    ansible-test sanity --test compile --python 3.9 --color no
    ansible-test sanity --test import --python 3.9 --color no
    run_units --venv --python 3.9
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

# The artifact must install and work with nothing but its run-time folders.
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

step_lab() {
    cd "$ROOT"
    PYTHONPATH=$PYTHONPATH:$COLLECTIONS "$VENV/bin/python" -m pytest -p no:cacheprovider --durations=60 \
        --ignore=tests/lab/test_night.py tests/lab
}

# A slower soak: larger labs, and an image with more packages.
step_night() {
    cd "$ROOT"
    PYTHONPATH=$PYTHONPATH:$COLLECTIONS "$VENV/bin/python" -m pytest -p no:cacheprovider -rP tests/lab/test_night.py
}

step_lab_trixie() {
    EVENFLOW_LAB_SUITE=trixie step_lab
}

step_molecule() {
    export ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true
    molecule test --scenario-name default
    molecule test --scenario-name rolling
}

# galaxy-importer logs what it dislikes and still succeeds, so its log decides too.
import_artifact() {
    local log=$LOGS/galaxy-importer.log
    (cd "$CACHE/artifact" && GALAXY_IMPORTER_CONFIG=$TOOLS/galaxy-importer.cfg \
        "$VENV/bin/python" -m galaxy_importer.main "$1") 2>&1 | tee "$log"
    if grep -E '^(ERROR|WARNING)' "$log"; then return 1; fi
}

# The same checks with another supported ansible-core, on the newest interpreter here that it supports.
other_core() {
    local core=$1 interpreter='' version
    local -A pythons=([2.19]='3.13 3.12 3.11' [2.20]='3.14 3.13 3.12' [2.21]='3.14 3.13 3.12')
    if [[ $(ansible-test --version) == "ansible-test version $core."* ]]; then
        cannot_run "not again: the other steps run with ansible-core $core"
    fi
    for version in ${pythons[$core]}; do
        if interpreter=$(find_python "$version"); then break; fi
    done
    [[ -n $interpreter ]] || cannot_run "ansible-core $core wants Python ${pythons[$core]// / or }: no such one here"

    VENV=$CACHE/venv-core-$core
    printf 'ansible-core~=%s.0\n' "$core" | cat - "$TOOLS/requirements-core.txt" >"$LOGS/$STEP.requirements.txt"
    make_venv "$VENV" "$interpreter" "$LOGS/$STEP.requirements.txt"
    export PATH=$VENV/bin:$PATH
    ansible --version
    step_sanity
    step_units
    # What modules and Ansible make of each other; the rest of the targets is about the node, whatever the core.
    step_integration lb_config lb_drain lb_fleet lb_info
}

# ansible-test is content with no tests at all.
run_units() {
    ansible-test units --color no "$@" 2>&1 | tee "$LOGS/$STEP.units"
    grep -qE '[1-9][0-9]* passed' "$LOGS/$STEP.units" || { echo "no unit test passed" && exit 1; }
}

bootstrap_pip() {
    "$VENV/bin/python" "$TOOLS/bootstrap_pip.py"
}

cannot_run() {
    printf '%s\n' "$1" | tee "$LOGS/$STEP.reason"
    exit 77
}

main
