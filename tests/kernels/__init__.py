# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests on the stock kernels of the Debian releases that nodes may have, in virtual machines without a network.

`python -m kernels` on the controller builds and boots the machines (image.py, machine.py). In a machine, namespaces are
the nodes of a lab (namespaces.py), and pytest runs the tests of this folder.
"""
