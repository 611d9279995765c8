# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of what the agent and the processes that check for it send to each other."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.messages import MAX_WEIGHT, Answer, Request
from ansible_collections.evenflow.l4lb.plugins.module_utils._agent.target import MESSAGE_LENGTH, Target
from ansible_collections.evenflow.l4lb.plugins.module_utils._state.health import CheckResult
from ansible_collections.evenflow.l4lb.tests.unit.factories import backend, check, configuration, listener


def test_a_request_as_it_was() -> None:
    options = {"status": ["200", "300-399"], "request_path": "/\u00e9 \ud800"}
    web = configuration(listener("web", backend("198.19.0.1"), health_check=check("http", **options))).listeners[0]
    assert web.health_check
    request = Request(7, 1.25, 4.5, Target.of(web, web.backends[0], web.health_check))
    assert Request.of_line(request.line()) == request


@pytest.mark.parametrize(
    "answer",
    [
        Answer(1, CheckResult(True, "status 200", 7), delay=0.5),
        Answer(2, CheckResult(None, "not checked"), cost=0.25),
        Answer(3, is_costly=True),
        Answer(4, signal=11),
    ],
)
def test_an_answer_as_it_was(answer: Answer) -> None:
    assert Answer.of_line(answer.line()) == answer


@pytest.mark.parametrize(
    ("result", "seen"),
    [
        (CheckResult(True, "one\n<0>two"), CheckResult(True, "one <0>two")),
        (CheckResult(False, "x" * 10_000), CheckResult(False, "x" * MESSAGE_LENGTH)),
        (CheckResult(True, "", 10**9), CheckResult(True, "", MAX_WEIGHT)),
        (CheckResult(True, "", -1), CheckResult(True, "", 0)),
    ],
)
def test_what_no_check_says(result: CheckResult, seen: Any) -> None:
    assert Answer.of_line(Answer(1, result).line()).result == seen
