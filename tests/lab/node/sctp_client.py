# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open SCTP associations, send on each every 0.2 s until standard input ends, and print a line for each event as JSON.

Arguments: address, port, number of associations. Events: "open" with the server's name and the client's port, "refused"
or "ended" with the error, "kept" at the end for those that live. Each has its time in seconds since the epoch.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
import threading
import time

_PAUSE = 0.2
_ANSWER_SECONDS = 60.0

_end = threading.Event()
_lock = threading.Lock()


def main(address: str, port: int, count: int) -> None:
    threads = [threading.Thread(target=_hold, args=(address, port)) for _number in range(count)]
    for thread in threads:
        thread.start()
    while select.select([sys.stdin], [], []) and os.read(sys.stdin.fileno(), 65536):
        pass
    _end.set()
    for thread in threads:
        thread.join()


def _hold(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    association = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    association.settimeout(_ANSWER_SECONDS)
    try:
        association.connect((address, port))
        name = association.recv(65536).decode().strip()
    except OSError as error:
        _print("refused", error=errno.errorcode.get(error.errno or 0, str(error)))
        return
    own = association.getsockname()[1]
    _print("open", backend=name, port=own)
    try:
        while not _end.wait(_PAUSE):
            association.sendall(b"data")
            if not association.recv(65536):
                raise OSError(0, "closed by the server")
    except OSError as error:
        _print("ended", backend=name, port=own, error=errno.errorcode.get(error.errno or 0, str(error)))
    else:
        _print("kept", backend=name, port=own)
    association.close()


def _print(event: str, **fields: object) -> None:
    with _lock:
        print(json.dumps({"event": event, "time": time.time(), **fields}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
