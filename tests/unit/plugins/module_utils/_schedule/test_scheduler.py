# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of slot tables: balance, weights, order, disruption and determinism."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from typing import Any, Sequence

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._config.model import Backend
from ansible_collections.evenflow.l4lb.plugins.module_utils._schedule.scheduler import (
    MAX_PERIOD,
    RING_SIZES,
    SlotTable,
    apportion,
    maglev,
    period,
    ring_size,
    slot_table,
    smooth_order,
)
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.eligibility import select
from ansible_collections.evenflow.l4lb.tests.unit.factories import ids_of, machines, service, weighted
from ansible_collections.evenflow.l4lb.tests.unit.interpreter import python_path
from hypothesis import assume, example, given
from hypothesis import strategies as st

SEED = 24301

_WEIGHT = st.one_of(st.integers(1, 5), st.integers(1, 200), st.sampled_from([1, 100, 65534, 65535]))
_WEIGHTS = st.lists(_WEIGHT, min_size=1, max_size=12)


def table_of(
    backends: Sequence[Backend], chosen: Sequence[Backend] | None = None, seed: int = SEED, **options: Any
) -> SlotTable:
    """Return the slot table of a listener, with slots for the eligible or the chosen backends."""
    concerned = service(tuple(backends), **options)
    return slot_table(concerned, select(concerned).backends if chosen is None else chosen, ids_of(concerned), seed)


def owners(
    backends: Sequence[Backend], chosen: Sequence[Backend] | None = None, seed: int = SEED, **options: Any
) -> list[Any]:
    """Return the address and port of the backend in each slot."""
    machine = {mark: key[1:] for key, mark in ids_of(service(tuple(backends), **options)).items()}
    return [machine[mark] for mark in table_of(backends, chosen, seed, **options).slots()]


def moved_share(before: Sequence[Any], after: Sequence[Any], concerned: Backend) -> float:
    """Return the share of slots that moved between two backends other than the changed one."""
    assert len(before) == len(after)
    others = [pair for pair in zip(before, after) if concerned.endpoint not in pair]
    return float(sum(old != new for old, new in others) / len(others))


class TestBalance:
    @given(_WEIGHTS, st.sampled_from(RING_SIZES[:2]))
    def test_every_slot_is_assigned_and_every_backend_has_a_slot(self, weights: list[int], size: int) -> None:
        """Row 54."""
        counts = apportion(weights, size)
        assert sum(counts) == size
        assert min(counts) >= 1

    @given(_WEIGHTS, st.sampled_from(RING_SIZES[:2]))
    def test_shares_are_within_one_slot_of_the_ratio(self, weights: list[int], size: int) -> None:
        """Row 14. If the minimum of a slot takes slots from other backends, the bounds of the next test apply."""
        exact = [Fraction(weight * size, sum(weights)) for weight in weights]
        assume(min(exact) >= 1)
        assert all(abs(count - share) < 1 for count, share in zip(apportion(weights, size), exact))

    @given(_WEIGHTS, st.sampled_from(RING_SIZES[:2]))
    def test_the_minimum_takes_no_more_slots_than_it_gives(self, weights: list[int], size: int) -> None:
        exact = [Fraction(weight * size, sum(weights)) for weight in weights]
        given_away = sum(max(Fraction(0), 1 - share) for share in exact)
        for count, share in zip(apportion(weights, size), exact):
            assert share - given_away - 1 < count < max(Fraction(1), share) + 1

    @given(_WEIGHTS, st.sampled_from(RING_SIZES[:2]))
    def test_more_weight_never_gets_fewer_slots(self, weights: list[int], size: int) -> None:
        counts = apportion(weights, size)
        for heavy, more in zip(weights, counts):
            assert all(more >= less for light, less in zip(weights, counts) if light < heavy)

    def test_weight_1_beside_65535(self) -> None:
        """Row 54: the light backend has a slot, and the heavy one has the other 1,008."""
        for scheduler, expected in (("mh", [1, 1008]), ("wrr", [1, 65535])):
            table = table_of(weighted(1, 65535), scheduler=scheduler)
            assert list(table.shares().values()) == expected
            assert sorted(map(table.slots().count, table.shares())) == expected

    @given(_WEIGHTS)
    def test_a_maglev_table_is_full_and_holds_the_shares(self, weights: list[int]) -> None:
        table = table_of(weighted(*weights))
        slots = table.slots()
        assert len(slots) == table.size
        assert {mark: slots.count(mark) for mark in set(slots)} == table.shares()

    def test_no_eligible_backend_gives_no_slots(self) -> None:
        for scheduler in ("mh", "wrr", "rr"):
            table = table_of(weighted(0, 0), scheduler=scheduler)
            assert (table.size, table.slots(), table.shares()) == (0, (), {})

    def test_more_backends_than_a_small_ring_has_slots_for(self) -> None:
        backends = machines(700)
        counts = table_of(backends).shares().values()
        assert sum(counts) == RING_SIZES[-1]
        assert set(counts) == {93, 94}


class TestRoundRobin:
    @given(st.lists(st.integers(1, 300), min_size=1, max_size=10))
    def test_wrr_is_exact_in_every_period(self, weights: list[int]) -> None:
        """Row 13."""
        table = table_of(weighted(*weights), scheduler="wrr")
        slots = table.slots()
        ratio = Fraction(table.size, sum(weights))
        assert [slots.count(entry.id) for entry in table.entries] == [weight * ratio for weight in weights]

    def test_600_flows_at_3_2_1(self) -> None:
        """Row 13."""
        table = table_of(weighted(300, 200, 100), scheduler="wrr")
        assert table.size == 6
        flows = [table.slots()[number % 6] for number in range(600)]
        assert [flows.count(entry.id) for entry in table.entries] == [300, 200, 100]
        assert smooth_order((3, 2, 1)) == (0, 1, 0, 2, 1, 0)

    def test_3_to_1_is_a_a_b_a(self) -> None:
        assert smooth_order((3, 1)) == (0, 0, 1, 0)

    @given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    @example([100] + [1] * 20)
    def test_every_prefix_is_close_to_the_shares(self, counts: list[int]) -> None:
        """A cut at time t leaves each index within 1/2 turn of count·t, as turn k is due at (k + 1/2) / count.

        Indices of equal counts share one such sequence: together they are within 1/2, each alone within 1. With p an
        index's share and c different counts, after n turns it is then its own error less p·(the sum of all errors) from
        p·n: at most 1/2 + p·(c-2)/2 if no other has its count, else 1 + p·c/2. (Tijdeman, 1980, reaches 1 - 1/(2m-2).)
        """
        total, seen, alike = sum(counts), [0] * len(counts), Counter(counts)
        shares = [Fraction(count, total) for count in counts]
        bounds = [
            1 + share * len(alike) / 2 if alike[count] > 1 else Fraction(1, 2) + share * max(0, len(alike) - 2) / 2
            for count, share in zip(counts, shares)
        ]
        for turn, index in enumerate(smooth_order(tuple(counts)), 1):
            seen[index] += 1
            for share, had, bound in zip(shares, seen, bounds):
                assert abs(had - turn * share) <= bound
        assert seen == counts

    @given(st.lists(st.integers(1, 60), min_size=2, max_size=2))
    def test_two_backends_are_never_more_than_half_a_turn_off(self, counts: list[int]) -> None:
        seen = 0
        for turn, index in enumerate(smooth_order(tuple(counts)), 1):
            seen += index == 0
            assert abs(seen - Fraction(turn * counts[0], sum(counts))) <= Fraction(1, 2)

    @given(_WEIGHTS)
    def test_rr_ignores_weights(self, weights: list[int]) -> None:
        """Row 12."""
        table = table_of(weighted(*weights), scheduler="rr")
        assert sorted(table.slots()) == sorted(entry.id for entry in table.entries)
        assert table == table_of(machines(len(weights)), scheduler="rr")

    def test_rr_drains_at_weight_0(self) -> None:
        assert owners(weighted(0, 5, 1), scheduler="rr") == [("198.19.0.2", 0), ("198.19.0.3", 0)]

    @pytest.mark.parametrize(
        ("weights", "slots"),
        [((65535, 65534), MAX_PERIOD), ((65535, 65535), 2), ((65535, 1), MAX_PERIOD), ((2, 4, 6), 6), ((7,), 1)],
    )
    def test_the_period_is_the_shortest_and_limited(self, weights: tuple[int, ...], slots: int) -> None:
        assert period(weights) == slots
        assert len(table_of(weighted(*weights), scheduler="wrr").slots()) == slots

    def test_a_capped_period_is_within_one_turn_of_the_ratio(self) -> None:
        shares = list(table_of(weighted(65535, 65534, 65533), scheduler="wrr").shares().values())
        assert sum(shares) == MAX_PERIOD
        for share, weight in zip(shares, (65535, 65534, 65533)):
            assert abs(share - Fraction(weight * MAX_PERIOD, 196602)) < 1


class TestRingSize:
    @pytest.mark.parametrize(
        ("registered", "minimum", "size"),
        [
            (1, 0, 1009),
            (10, 0, 1009),
            (11, 0, 4093),
            (40, 0, 4093),
            (41, 0, 16381),
            (163, 0, 16381),
            (164, 0, 65521),
            (5000, 0, 65521),
            (1, 1009, 1009),
            (1, 1010, 4093),
            (1, 4093, 4093),
            (1, 4094, 16381),
            (1, 16382, 65521),
            (1, 65521, 65521),
            (41, 1, 16381),
        ],
    )
    def test_the_ring_size_grows_in_steps(self, registered: int, minimum: int, size: int) -> None:
        assert ring_size(registered, minimum) == size

    @pytest.mark.parametrize("size", RING_SIZES)
    def test_sizes_are_prime(self, size: int) -> None:
        assert all(size % divisor for divisor in range(2, int(size**0.5) + 1))

    def test_a_drain_does_not_change_the_size(self) -> None:
        backends = machines(11)
        assert table_of(backends, chosen=backends[:1]).size == 4093

    def test_the_listeners_minimum_counts(self) -> None:
        assert len(table_of(machines(2), minimum_ring_size=1010).slots()) == 4093


class TestDisruption:
    """Row 14: the slots of other backends stay, as far as Maglev allows."""

    @pytest.mark.parametrize("count", range(2, 61))
    def test_a_backend_is_removed(self, count: int) -> None:
        backends = machines(count)
        before = owners(backends)
        # Remove each backend of a small fleet, but only some of a larger fleet, whose tables are more stable.
        for gone in backends if count <= 10 else backends[:: count // 2]:
            kept = [backend for backend in backends if backend != gone]
            assert moved_share(before, owners(backends, kept), gone) < 0.05

    @pytest.mark.parametrize("count", [2, 3, 5, 9, 11, 39, 41])
    def test_a_backend_is_added(self, count: int) -> None:
        backends = machines(count + 1)
        assert moved_share(owners(backends[:-1]), owners(backends), backends[-1]) < 0.05

    def test_random_fleets_on_average(self) -> None:
        """More slots may move for some permutations, but rarely and within a bound."""
        chance = random.Random(14)
        shares = []
        for _fleet in range(80):
            backends = [
                machine._replace(address=f"198.19.{chance.randrange(256)}.{number + 1}")
                for number, machine in enumerate(machines(chance.randint(3, 10)))
            ]
            gone, seed = chance.choice(backends), chance.getrandbits(32)
            kept = [backend for backend in backends if backend != gone]
            shares.append(moved_share(owners(backends, seed=seed), owners(backends, kept, seed=seed), gone))
        shares.sort()
        assert sum(shares) / len(shares) < 0.025
        assert shares[len(shares) * 95 // 100] < 0.05
        assert shares[-1] < 0.1

    def test_a_small_change_of_weight_moves_little(self) -> None:
        before, after = owners(weighted(*[100] * 10)), owners(weighted(90, *[100] * 9))
        changed = sum(old != new for old, new in zip(before, after)) / len(before)
        assert 0.009 < changed < 0.06

    def test_a_drained_machine_gets_its_slots_back(self) -> None:
        backends = machines(7)
        before = owners(backends)
        owners(backends, backends[1:])
        assert owners(backends) == before

    @pytest.mark.parametrize("count", [3, 5, 10])
    def test_the_second_port_of_a_machine_is_removed(self, count: int) -> None:
        backends = machines(count)
        twice = [*backends[:-1], backends[0]._replace(port=81)]
        kept = twice[:-1]
        assert moved_share(owners(twice), owners(twice, kept), twice[-1]) < 0.05


class TestDeterminism:
    @given(st.permutations(weighted(3, 1, 4, 1, 5)), st.sampled_from(["mh", "wrr", "rr"]))
    def test_the_order_of_input_does_not_matter(self, shuffled: list[Backend], scheduler: str) -> None:
        expected = table_of(weighted(3, 1, 4, 1, 5), scheduler=scheduler)
        assert table_of(shuffled, scheduler=scheduler) == expected

    def test_the_table_does_not_depend_on_the_hash_seed_of_python(self) -> None:
        program = (
            "from ansible_collections.evenflow.l4lb.tests.unit.plugins.module_utils._schedule.test_scheduler "
            "import table_of\n"
            "from ansible_collections.evenflow.l4lb.tests.unit.factories import weighted\n"
            "print(*table_of(weighted(3, 1, 4, 1, 5)).slots())"
        )
        outputs = [
            subprocess.run(
                [sys.executable, "-c", program],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": python_path()},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for seed in ("1", "2")
        ]
        assert outputs[0] == outputs[1] == " ".join(map(str, table_of(weighted(3, 1, 4, 1, 5)).slots())) + "\n"

    def test_tables_do_not_change_between_versions(self) -> None:
        """If these numbers change, flows move in every fleet that is updated node by node."""
        assert [address[-1] for address, _port in owners(machines(3))[:24]] == list("131232321231331321232313")
        assert [owners(machines(3)).count((f"198.19.0.{last}", 0)) for last in (1, 2, 3)] == [337, 336, 336]

    def test_the_seed_changes_the_table(self) -> None:
        first, second = owners(machines(4)), owners(machines(4), seed=SEED + 1)
        assert 0.5 < sum(old != new for old, new in zip(first, second)) / len(first) < 1

    @pytest.mark.parametrize("scheduler", ["wrr", "rr"])
    def test_the_seed_does_not_change_round_robin_tables(self, scheduler: str) -> None:
        backends = weighted(3, 1)
        assert table_of(backends, scheduler=scheduler) == table_of(backends, scheduler=scheduler, seed=1)

    def test_the_cache_does_not_change_results(self) -> None:
        fleets = [machines(count) for count in range(2, 8)]
        cached = [[owners(fleet) for fleet in fleets] for _round in range(2)][1]
        assert maglev.cache_info().hits
        fresh = []
        for fleet in fleets:
            maglev.cache_clear()
            fresh.append(owners(fleet))
        assert cached == fresh


class TestTwoListeners:
    """Two listeners with the same machines send a client to the same machine."""

    def test_names_vips_and_ports_do_not_matter(self) -> None:
        backends = weighted(3, 1, 4)
        other = [backend._replace(port=8080) for backend in backends]
        web = [address for address, _port in owners(backends)]
        assert web == [a for a, _port in owners(other, name="dns", address="198.18.0.99", protocol="udp")]

    def test_machines_with_two_ports_each(self) -> None:
        def registered(*ports: int) -> list[Backend]:
            return [machine._replace(port=port) for machine in machines(3) for port in ports]

        low, high = owners(registered(80, 81)), owners(registered(8080, 9090))
        assert [address for address, _port in low] == [address for address, _port in high]
        assert sorted({low.count(key) for key in set(low)}) == [168, 169]
