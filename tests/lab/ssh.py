# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection of Ansible to a node: OpenSSH as on a real fleet, over a pipe, so that it needs no address."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from .store import LabError, Store, write_changed

PROGRAMS = ("ssh", "ssh-keygen")

_SERVER_FILES = "/etc/lab-ssh"
_HOST = "evenflow-lab"
_PERSIST_SECONDS = 60


def prepare(store: Store) -> Path:
    """Make the keys and settings of both sides, once for a cache, and return the folder for the nodes."""
    server, client = store.folder / "ssh" / "server", _client_folder(store)
    for folder in (server, client):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with store.lock("ssh"):
        host_key, user_key = (_public_key(folder / "key") for folder in (server, client))
    write_changed(server / "authorized_keys", user_key, 0o600)
    write_changed(client / "known_hosts", f"{_HOST} {host_key}", 0o600)
    write_changed(
        server / "sshd_config",
        "\n".join(
            [
                f"HostKey {_SERVER_FILES}/key",
                f"AuthorizedKeysFile {_SERVER_FILES}/authorized_keys",
                "AuthenticationMethods publickey",
                "PermitRootLogin prohibit-password",
                "UsePAM no",
                "",
            ]
        ),
        0o600,
    )
    command = f'"{store.wrapper}" exec --interactive %h /usr/sbin/sshd -i -f {_SERVER_FILES}/sshd_config'
    write_changed(
        _settings(store),
        "\n".join(
            [
                "Host *",
                f"  ProxyCommand {command}",
                f"  HostKeyAlias {_HOST}",
                f'  UserKnownHostsFile "{client / "known_hosts"}"',
                f'  IdentityFile "{client / "key"}"',
                "  IdentitiesOnly yes",
                "  User root",
                "  LogLevel ERROR",
                "",
            ]
        ),
        0o600,
    )
    return server


def mount(server: Path) -> list[str]:
    """Return the options of `podman create` for a node that Ansible reaches by this connection."""
    return ["--mount", f"type=bind,src={server},dst={_SERVER_FILES},ro=true"]


def variables(store: Store) -> dict[str, Any]:
    """Return the Ansible variables of all nodes; `ansible_host` is a node's container."""
    return {
        "ansible_connection": "ssh",
        "ansible_ssh_common_args": f"-F '{_settings(store)}'",
        "ansible_ssh_args": f"-o ControlMaster=auto -o ControlPersist={_PERSIST_SECONDS}s",
        # a socket's path must be short, and the path of the cache may be long
        "ansible_control_path_dir": str(store.run_root / "ssh"),
        "ansible_ssh_transfer_method": "piped",
        "ansible_pipelining": True,
    }


def _client_folder(store: Store) -> Path:
    return store.folder / "ssh" / "client"


def _settings(store: Store) -> Path:
    return _client_folder(store) / "config"


def _public_key(path: Path) -> str:
    """Return the public half of a key, and make the key if there is none."""
    if not path.exists():
        done = subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise LabError(f"ssh-keygen could not make {path}: {done.stderr.strip()}")
    return path.with_suffix(".pub").read_text(encoding="ascii")
