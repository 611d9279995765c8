# Copyright (c) 2026 The Evenflow authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Refuse programs that users other than root can change, as keepalived's script security does.

Every hop of a path is checked, symbolic links and the folders that they lead through included. So only root can change
between this check and the start which file runs. The program is started by its path: started by a descriptor, a script
would not find the files beside it by its own name.
"""

from __future__ import annotations

import errno
import os
import stat

_MAX_LINKS = 40


class ScriptRefused(Exception):
    """Raised if a script is not run; the text is the reason."""


def check_script(path: str) -> None:
    """Refuse a program that users other than root can change or replace.

    :raises ScriptRefused: a hop of the path is not root's or is writable by others, or the path does not lead to an
        executable file.
    """
    if not path.startswith("/"):
        raise ScriptRefused(f"{path} is not an absolute path")
    place, ahead, links = "/", path.split("/"), 0
    _check_place(place)
    while ahead:
        name, ahead = ahead[0], ahead[1:]
        if name in ("", "."):
            continue
        # Links in the place are resolved, so that its parent is the folder above it.
        hop = os.path.dirname(place) if name == ".." else os.path.join(place, name)
        if not stat.S_ISLNK(_check_place(hop)):
            place = hop
            continue
        links += 1
        if links > _MAX_LINKS:
            raise ScriptRefused(f"{path}: {os.strerror(errno.ELOOP)}")
        target = os.readlink(hop)
        place = "/" if target.startswith("/") else place
        ahead = target.split("/") + ahead
    if not os.path.isfile(place) or not os.access(place, os.X_OK):
        raise ScriptRefused(f"{path} is not an executable file")


def _check_place(place: str) -> int:
    """Return the mode of a hop that only root can change."""
    try:
        status = os.lstat(place)
    except OSError as error:
        raise ScriptRefused(f"{place}: {error.strerror}") from error
    if status.st_uid != 0:
        raise ScriptRefused(f"{place} is not owned by root")
    writable_by = stat.S_IWOTH if status.st_gid == 0 else stat.S_IWGRP | stat.S_IWOTH
    # The mode of a link means nothing: who may replace it depends on its folder.
    if status.st_mode & writable_by and not stat.S_ISLNK(status.st_mode):
        raise ScriptRefused(f"{place} is writable by users other than root")
    return status.st_mode
