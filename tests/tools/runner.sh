# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Cheap steps first: what is wrong shows early.
STEPS=(changelog reuse mypy docs lint units sanity units-py39 artifact integration core-2.19 core-2.20 core-2.21 lab
    molecule)
# Steps that take too long to be part of all.
MORE_STEPS=(night lab-trixie)
STEP_SECONDS=3600
NOT_RUN=77

check_step_names() {
    local name
    for name in "$@"; do
        if [[ " ${STEPS[*]} ${MORE_STEPS[*]} " != *" $name "* ]]; then
            echo "no step is called $name; there are: ${STEPS[*]} ${MORE_STEPS[*]}" >&2
            exit 2
        fi
    done
}

# Runs the named steps, or all; the last line counts them. Fails if one failed.
run_steps() {
    local passed=() failed=() not_run=() name status started
    (($#)) || set -- "${STEPS[@]}"
    rm -f -- "$LOGS"/*.reason
    for name in "$@"; do
        printf '%-14s' "$name"
        started=$SECONDS
        status=0
        run_step "$name" || status=$?
        case $status in
        0) passed+=("$name") && verdict passed "$started" ;;
        "$NOT_RUN") not_run+=("$name") && verdict "could not run: $(<"$LOGS/$name.reason")" "$started" ;;
        *)
            failed+=("$name")
            verdict "FAILED (status $status)" "$started"
            tail -n 60 -- "$LOGS/$name.log" | sed 's/^/    /'
            echo "    whole output: $LOGS/$name.log"
            ;;
        esac
    done

    echo
    echo "ran:           ${passed[*]} ${failed[*]}"
    echo "failed:        ${failed[*]:-none}"
    for name in "${not_run[@]}"; do echo "could not run: $name: $(<"$LOGS/$name.reason")"; done
    ((${#not_run[@]})) || echo "could not run: none"
    echo "${#passed[@]} passed, ${#failed[@]} failed"
    ((${#failed[@]} == 0 && ${#passed[@]} > 0))
}

# A process of its own, so that the step ends at its first failing command and can be ended when its time is over.
run_step() {
    local name=$1 child status=0
    timeout --kill-after=30 "$STEP_SECONDS" "$TOOLS/step.sh" "$name" >"$LOGS/$name.log" 2>&1 </dev/null &
    child=$!
    # shellcheck disable=SC2064
    trap "kill $child; wait $child; exit 130" INT TERM
    wait "$child" || status=$?
    trap - INT TERM
    return "$status"
}

verdict() {
    printf '%5d s  %s\n' "$((SECONDS - $2))" "$1"
}
