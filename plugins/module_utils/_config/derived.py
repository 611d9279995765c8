# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Results kept for the length of a change, so that what did not change is not derived twice."""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple, TypeVar

_Result = TypeVar("_Result")


class Derived:
    """Keep the last result of pure functions, by function and subject.

    One change of a node makes one of these and passes it to all that derives something from the configuration before
    and after: the two have most of their listeners in common, as the same objects.
    """

    def __init__(self) -> None:
        self._kept: Dict[Tuple[Callable[..., Any], int], Tuple[Any, Tuple[Any, ...], Any]] = {}

    def get(self, derive: Callable[..., _Result], subject: Any, *inputs: Any) -> _Result:
        """Return ``derive(subject, *inputs)``, kept from the last time if all of its arguments are the same.

        The function gets nothing but the arguments that are compared, so no input can be forgotten.

        :param derive: a pure function; not a closure or a partial.
        :param subject: an immutable value that is compared by identity, because a comparison costs as much
            as the function.
        :param inputs: values that are compared by equality.
        """
        place = derive, id(subject)
        kept = self._kept.get(place)
        if kept is not None and kept[0] is subject and kept[1] == inputs:
            result: _Result = kept[2]
            return result
        result = derive(subject, *inputs)
        # The subject is kept with its result, so that its identity is not given to another object.
        self._kept[place] = subject, inputs, result
        return result
