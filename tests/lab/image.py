# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The root file system that all nodes boot: Debian from packages, built when its recipe changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .store import LabError, Store

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "kmod",
    "procps",
    "iproute2",
    "iputils-ping",
    "nftables",
    "conntrack",
    "keepalived",
    "python3",
    "python3-apt",
    "python3-pyroute2",
    "python3-jmespath",
    "python3-dnspython",
    "python3-h11",
    "python3-h2",
    "python3-aiohttp",
    "nginx",
    "tcpdump",
    "curl",
    "netcat-openbsd",
    "ca-certificates",
    "openssl",
    "ulogd2",
    "openssh-server",
)

# A privileged container shares the machine's kernel settings, clock, disks and devices: no unit may change them.
MASKED_UNITS = (
    "nginx.service",
    "keepalived.service",
    "systemd-udevd.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-udev-trigger.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "systemd-journald-audit.socket",
    "systemd-timesyncd.service",
    "systemd-firstboot.service",
    "systemd-remount-fs.service",
    "systemd-random-seed.service",
    "systemd-pstore.service",
    "systemd-rfkill.service",
    "systemd-rfkill.socket",
    "systemd-logind.service",
    "getty.target",
    "console-getty.service",
    "getty@tty1.service",
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "kmod-static-nodes.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "postgresql.service",
    "fstrim.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "ssh.service",
    "ssh.socket",
)

_CUSTOMIZE = (
    'cd "$1" && rm -f usr/lib/sysctl.d/* && : > etc/machine-id && mkdir -p etc/systemd/journald.conf.d opt/lab'
    " && printf '[Journal]\\nReadKMsg=no\\nStorage=volatile\\n' > etc/systemd/journald.conf.d/lab.conf"
    # the lab's servers have the lab's key
    " && rm -f etc/ssh/ssh_host_* && echo 'd /run/sshd 0755' > etc/tmpfiles.d/lab.conf"
    " && chroot . systemctl --quiet mask "
    + " ".join(MASKED_UNITS)
    # the image is as new as its packages, so that no boot rebuilds caches
    + " && touch -r usr etc/.updated var/.updated"
)


@dataclass(frozen=True)
class Source:
    """One package archive that the machine itself uses."""

    uri: str
    label: str


def image_name(suite: str, more: tuple[str, ...] = ()) -> str:
    """Return the name of the image for `suite` with `more` packages, which changes with the recipe."""
    recipe = "\n".join([suite, *PACKAGES, *more, _CUSTOMIZE])
    return f"{_kind(suite, more)}{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ensure_image(store: Store, suite: str, say: Callable[[str], None], more: tuple[str, ...] = ()) -> str:
    """Build and import the image unless the store has it, and return its name. Raise LabError if it cannot be built."""
    name = image_name(suite, more)
    with store.lock("image"):
        if name in _images(store):
            return name
        say(f"building the Debian {suite} image (once; about a minute)")
        archive = store.folder / "tmp" / f"{suite}.{os.getpid()}.tar"
        try:
            bootstrap(suite, [*PACKAGES, *more], _CUSTOMIZE, str(archive))
            store.podman(["import", "--quiet", str(archive), name], timeout=300)
        finally:
            archive.unlink(missing_ok=True)
        for old in _images(store):
            if old != name and old.startswith(_kind(suite, more)):
                # podman refuses to remove an image while a lab runs on it
                store.podman(["rmi", old], check=False)
    return name


def _kind(suite: str, more: tuple[str, ...]) -> str:
    return f"localhost/evenflow-lab{'-more' if more else ''}:{suite}-"


def apt_sources() -> tuple[Source, ...]:
    """Return Debian's archives that the machine's apt has indexes of, without those of third parties."""
    lines = _indexes()
    if not lines:
        subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True, timeout=300)
        lines = _indexes()
    sources: dict[str, Source] = {}
    for line in lines:
        origin, label, uri = line.split("|")
        sources.setdefault(label, Source(uri, label))
    if "Debian" not in sources:
        raise LabError("apt has no index of a Debian archive to build the image from; run: apt-get update")
    return tuple(sources.values())


def source_lines(suite: str, sources: tuple[Source, ...], keyring: str) -> list[str]:
    """Return one-line apt sources for `suite` on these archives."""
    suites = {"Debian": [suite, f"{suite}-updates"], "Debian-Security": [f"{suite}-security"]}
    return [
        f"deb [signed-by={keyring}] {source.uri} {name} main"
        for source in sources
        for name in suites.get(source.label, [])
    ]


def bootstrap(suite: str, packages: Sequence[str], hook: str, target: str, options: Sequence[str] = ()) -> None:
    """Install packages into a new root file system and write it to `target` in mmdebstrap's format for that name.

    `hook` is a shell command; its `$1` is the root file system. Raise LabError if it cannot be built.
    """
    if not shutil.which("mmdebstrap"):
        raise LabError("mmdebstrap is missing; run: apt-get install mmdebstrap")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    if not Path(keyring).exists():
        raise LabError(f"{keyring} is missing; run: apt-get install debian-archive-keyring")
    arguments = [
        "--variant=minbase",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--customize-hook={hook}",
        *(f"--aptopt={line}" for line in _transport_settings()),
        *options,
    ]
    sources = source_lines(suite, apt_sources(), keyring)
    done = subprocess.run(
        ["mmdebstrap", *arguments, suite, target, *sources],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise LabError(f"mmdebstrap could not build Debian {suite}:\n{tail}")


def _indexes() -> list[str]:
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line.startswith("Debian|")]


def _transport_settings() -> list[str]:
    """Return the proxy and certificate settings of the machine's apt, in the form that apt reads."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=60, check=True)
    prefixes = ("Acquire::http::", "Acquire::https::", "Acquire::Check-Valid-Until ")
    return [line.rstrip(";") for line in done.stdout.splitlines() if line.startswith(prefixes)]


def _images(store: Store) -> list[str]:
    return store.podman(["images", "--format", "{{.Repository}}:{{.Tag}}"]).split()
