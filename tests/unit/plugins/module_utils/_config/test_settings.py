# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the settings of a node."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.option import defaults
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import NODE
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings, parse_settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import InvalidInput
from hypothesis import given
from hypothesis import strategies as st


def test_no_settings_give_the_defaults() -> None:
    assert parse_settings({}) == Settings()
    assert asdict(Settings()) == defaults(NODE)


@pytest.mark.parametrize(
    "data",
    [
        {"hash_seed": 0, "log_group": 65535, "conntrack_max": 1024},
        {"hash_seed": 4294967295, "log_group": 0, "conntrack_max": 2147483647},
        {"vip_mode": "address", "vip_interface": "front", "vip_dedicated": False},
        {"vip_mode": "none", "vip_interface": "x" * 15, "vip_dedicated": None},
    ],
)
def test_valid_settings_are_kept(data: dict[str, Any]) -> None:
    assert asdict(parse_settings(data)) == {**defaults(NODE), **data}


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        ([], ["[] is not a dictionary of settings"]),
        ({"colour": "red"}, [f"colour: unknown setting; allowed: {', '.join(NODE)}"]),
        ({"hash_seed": -1}, ["hash_seed: -1 is not in 0–4294967295"]),
        ({"hash_seed": "1"}, ["hash_seed: '1' is not a whole number"]),
        ({"hash_seed": None}, ["hash_seed: None is not a whole number"]),
        ({"hash_seed": True}, ["hash_seed: True is not a whole number"]),
        ({"vip_mode": "vrrp"}, ["vip_mode: 'vrrp' is not one of none, address"]),
        ({"vip_mode": ["none"]}, ["vip_mode: ['none'] is not text"]),
        ({"vip_mode": "address"}, ["vip_interface: required with vip_mode: address"]),
        ({"vip_interface": "a/b"}, ["vip_interface: 'a/b' is not the name of an interface"]),
        ({"vip_interface": 7}, ["vip_interface: 7 is not text"]),
        ({"vip_dedicated": "yes"}, ["vip_dedicated: 'yes' is not true or false"]),
        ({"forward_policy": "vip"}, ["forward_policy: 'vip' is not one of none, vips"]),
        ({"log_group": 65536}, ["log_group: 65536 is not in 0–65535"]),
        ({"conntrack_max": 1023}, ["conntrack_max: 1023 is not in 1024–2147483647"]),
        (
            {"hash_seed": 1.5, "vip_mode": "address", "vip_interface": ""},
            ["hash_seed: 1.5 is not a whole number", "vip_interface: required with vip_mode: address"],
        ),
    ],
)
def test_invalid_settings_are_refused(data: Any, errors: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_settings(data)
    assert refused.value.errors == errors


@given(
    st.dictionaries(
        st.sampled_from([*NODE, "colour"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)),
    )
)
def test_any_settings_are_refused_or_kept(data: dict[str, Any]) -> None:
    try:
        settings = parse_settings(data)
    except InvalidInput:
        return
    assert asdict(settings) == {**defaults(NODE), **data}
