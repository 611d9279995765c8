# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests that the role and the library agree on the types, choices, ranges and defaults of a node's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.option import InvalidValue, argument_spec
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.options import NODE, PURGES
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.settings import Settings, parse_settings
from ansible_collections.evenflow.l4lb.plugins.module_utils._errors import InvalidInput

ROLE = Path(__file__).parents[2] / "roles" / "lb_node"


def _yaml(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))
    return content


def _variables(**variables: Any) -> Templar:
    """Return a templar with the role's variables and those of a user."""
    defined = {**_yaml("defaults/main.yml"), **_yaml("vars/main.yml")}
    trusted = {name: trust_as_template(value) if isinstance(value, str) else value for name, value in defined.items()}
    trusted["_lb_node_settings"] = {
        name: trust_as_template(value) for name, value in defined["_lb_node_settings"].items()
    }
    return Templar(loader=DataLoader(), variables={**trusted, **variables})


def _render(templar: Templar, variable: str) -> Any:
    return templar.template(trust_as_template("{{ %s }}" % variable))


def test_the_role_documents_the_types_choices_and_defaults_of_the_library() -> None:
    options = _yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    for name, entry in argument_spec(NODE).items():
        role_entry = options[f"lb_node_{name}"]
        assert {key: role_entry.get(key) for key in ("type", "choices")} == {"choices": None, **entry}
        # The role makes a seed for each fleet.
        assert role_entry.get("default") == (None if name == "hash_seed" else NODE[name].default)
    assert options["lb_node_purge"]["choices"] == list(PURGES)


def test_the_role_documents_its_own_defaults() -> None:
    options = _yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    documented = {name: entry["default"] for name, entry in options.items() if "default" in entry}
    assert documented == _yaml("defaults/main.yml")


def test_the_role_writes_every_setting_with_the_defaults_of_the_library() -> None:
    settings = _render(_variables(_lb_node_seed=str(NODE["hash_seed"].default)), "_lb_node_settings")
    assert list(settings) == list(NODE)
    assert parse_settings(json.loads(json.dumps(settings))) == Settings()


@pytest.mark.parametrize("name", [name for name, option in NODE.items() if option.bounds])
def test_the_role_documents_and_refuses_the_ranges_of_the_library(name: str) -> None:
    bounds = NODE[name].bounds
    assert bounds is not None
    description = _yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"][f"lb_node_{name}"][
        "description"
    ]
    assert f"{bounds[0]} to {bounds[1]}" in " ".join(description)
    for value in (bounds[0], bounds[1]):
        assert _render(_variables(**{f"lb_node_{name}": value}), "_lb_node_complaints") == []
    for value in (bounds[0] - 1, bounds[1] + 1):
        with pytest.raises(InvalidValue) as refused:
            NODE[name].canonical(value)
        complaints = _render(_variables(**{f"lb_node_{name}": value}), "_lb_node_complaints")
        assert complaints == [f"lb_node_{name}: {str(refused.value).replace(repr(value), str(value))}"]


@pytest.mark.parametrize(
    ("mode", "interface"),
    [
        *[("address", name) for name in ("lo", "front", "x" * 15, "eth0.5", "a:b", "é")],
        *[(mode, name) for mode in ("none", "address") for name in ("", "x" * 16, "a/b", "a b", "a\n", ".", "..")],
    ],
)
def test_the_role_refuses_the_interfaces_that_the_library_refuses(mode: str, interface: str) -> None:
    variables = _variables(lb_node_vip_mode=mode, lb_node_vip_interface=interface)
    try:
        parse_settings({"vip_mode": mode, "vip_interface": interface})
    except InvalidInput as error:
        refused = [f"lb_node_{text.partition(':')[0]}" for text in error.errors]
    else:
        refused = []
    assert [text.partition(":")[0] for text in _render(variables, "_lb_node_complaints")] == refused


def _seed_of(*known: str | None, settings: list[dict[str, Any]] | None = None) -> list[str]:
    """Return the seeds that the role finds on the nodes of a play, or else on the others."""
    hosts = {f"lb{number}": {} if seed is None else {"_lb_node_seed": seed} for number, seed in enumerate(known)}
    variables = {"ansible_play_hosts_all": list(hosts), "hostvars": hosts}
    if settings is not None:
        variables["_lb_node_fleet_read"] = {"results": settings}
    seeds: list[str] = _render(_variables(**variables), "_lb_node_seeds")
    return seeds


def test_the_seed_of_a_fleet_is_what_its_nodes_have() -> None:
    node = {"rc": 0, "stdout": '{\n  "hash_seed": 77,\n  "vip_mode": "none"\n}', "item": "lb9"}
    empty = {"rc": 1, "stdout": "", "item": "lb8"}
    away = {"unreachable": True, "item": "lb7"}
    assert _seed_of("", "") == []
    assert _seed_of("", None, "5") == ["5"]
    assert _seed_of("5", "5", "6") == ["5", "6"]
    assert _seed_of("", settings=[empty, away]) == []
    assert _seed_of("", settings=[empty, node, away]) == ["77"]
    assert _seed_of("5", settings=[node]) == ["5"]


@pytest.mark.parametrize(
    ("rc", "stdout", "seed"),
    [(1, "", ""), (0, '{"hash_seed": 0}', "0"), (0, '{"hash_seed":4294967295}', "4294967295"), (0, "{}", 24301)],
)
def test_the_seed_of_a_node_is_the_one_in_its_settings(rc: int, stdout: str, seed: str | int) -> None:
    variables = _variables(_lb_node_settings_read={"rc": rc, "stdout": stdout})
    assert _render(variables, "_lb_node_seed_in_settings") == seed


def test_the_role_refuses_flow_numbers_out_of_the_range_that_it_documents() -> None:
    first, last = 1024, 2147483647
    options = _yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert f"{first} to {last}" in " ".join(options["lb_node_conntrack_max"]["description"])
    for value in (first, last):
        assert _render(_variables(lb_node_conntrack_max=value), "_lb_node_complaints") == []
    for value in (first - 1, last + 1):
        expected = [f"lb_node_conntrack_max: {value} is not in {first}–{last}"]
        assert _render(_variables(lb_node_conntrack_max=value), "_lb_node_complaints") == expected
