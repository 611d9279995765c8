# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel and the root file system of a virtual machine: Debian from packages, built when the recipe changes."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.image import bootstrap
from lab.store import Store

PACKAGES = (
    "linux-image-cloud-amd64",
    "bash",
    "kmod",
    "procps",
    "iproute2",
    "iputils-ping",
    "nftables",
    "conntrack",
    "tcpdump",
    "nginx",
    "python3",
    "python3-pytest",
    # what the agent and the modules of the collection import
    "python3-pyroute2",
    "python3-jmespath",
    "python3-dnspython",
    "python3-h11",
    "python3-h2",
)

# Drivers of hardware that the machine does not have take most of the room.
_CUSTOMIZE = (
    'cd "$1" && cp boot/vmlinuz-* {kernel} && rm -rf boot/* var/lib/apt/lists/* var/cache/apt/*.bin'
    " && find usr/lib/modules -path '*/kernel/drivers/*' ! -path '*/drivers/net/*' -type f -delete"
    " && find . -xdev -print0 | chroot . cpio --quiet --null --create --format=newc > {root}"
)


@dataclass(frozen=True)
class Image:
    """The files that boot a machine: its kernel, and the archive of its root file system."""

    kernel: Path
    root: Path


def ensure_image(store: Store, suite: str, say: Callable[[str], None]) -> Image:
    """Build the image unless the cache has it, and return it. Raise LabError if it cannot be built."""
    recipe = "\n".join([suite, *PACKAGES, _CUSTOMIZE])
    folder = store.cache / "kernels" / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with store.lock(f"kernels-{suite}"):
        if not folder.exists():
            say(f"building the Debian {suite} machine (once; about a minute)")
            for old in folder.parent.glob(f"{suite}-*"):
                shutil.rmtree(old)
            made = folder.with_name(f"{folder.name}.new")
            made.mkdir(parents=True)
            image = _image(made)
            hook = _CUSTOMIZE.format(kernel=shlex.quote(str(image.kernel)), root=shlex.quote(str(image.root)))
            bootstrap(suite, PACKAGES, hook, "/dev/null", ["--format=null"])
            made.rename(folder)
    return _image(folder)


def _image(folder: Path) -> Image:
    return Image(folder / "vmlinuz", folder / "root.cpio")
