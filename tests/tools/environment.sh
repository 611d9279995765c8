# shellcheck shell=bash
# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Set the paths and the environment of every command. ROOT, the folder of the clone, must be set. A step of the tests
# sets STEP to its name, and works in separate folders, so that steps can run side by side.
# The files that source this one use the variables.
# shellcheck disable=SC2034

CACHE=${EVENFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/evenflow}
[[ $CACHE == /* ]] || CACHE=$PWD/$CACHE
TOOLS=$ROOT/tests/tools
VENV=$CACHE/venv
NOX=$CACHE/venv-nox
WORK=$CACHE${STEP:+/steps/$STEP}
COLLECTIONS=$WORK/collections
COLLECTION=$COLLECTIONS/ansible_collections/evenflow/l4lb
LOGS=$CACHE/logs
SYSTEM_PYTHON=/usr/bin/python3

export EVENFLOW_CACHE=$CACHE
export EVENFLOW_USER_HOME=${EVENFLOW_USER_HOME:-$HOME}
export EVENFLOW_USER_PATH=${EVENFLOW_USER_PATH:-$PATH}
# Ansible, ansible-test, molecule and pip write below the home folder: give them a folder that "undo" can remove.
export HOME=$WORK/home
export XDG_CACHE_HOME=$HOME/.cache
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME
export PIP_CACHE_DIR=$CACHE/pip PIP_DISABLE_PIP_VERSION_CHECK=1
export PYTHONPYCACHEPREFIX=$CACHE/pycache
export PYTHONPATH=$ROOT/tests
export ANSIBLE_COLLECTIONS_PATH=$COLLECTIONS
# ansible-test breaks on the shims of Python version managers, so no folder of the caller's PATH is kept.
export PATH=$VENV/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8
unset VIRTUAL_ENV PYTHONHOME
