# Copyright (c) 2026 The Evenflow authors
# SPDX-License-Identifier: GPL-3.0-or-later

# /// script
# dependencies = ["nox>=2025.5", "antsibull-nox"]
# ///

"""Checks that need neither root nor a lab. `./dev test` runs these sessions too, without environments of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import antsibull_nox
import nox
from antsibull_nox.sessions.collections import prepare_collections

TOOLS = Path(__file__).resolve().parent / "tests" / "tools"
CONSTRAINTS = TOOLS / "requirements.txt"
TEST_IMPORTS = TOOLS / "requirements-core.txt"

antsibull_nox.load_antsibull_nox_toml()


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy --strict on the whole tree."""
    install(session, "ansible-core", "matplotlib", "mypy", "-r", str(TEST_IMPORTS))
    with collection(session) as folder:
        # This file's imports are where nox is.
        session.run("mypy", "--python-executable", sys.executable, "noxfile.py")
        bases = os.pathsep.join(map(str, (folder.parents[2], folder / "tests", folder)))
        packages = [f"ansible_collections.evenflow.l4lb.{name}" for name in ("plugins", "tests.unit")]
        packages += ["benchmarks", "kernels", "lab", "tools"]
        # Not from the collection's folder, which would be a second name for its modules.
        with session.chdir(folder.parents[2]):
            session.run(
                *("mypy", "--config-file", str(folder / "pyproject.toml")),
                *(word for package in packages for word in ("--package", package)),
                env={"MYPYPATH": bases},
            )


@nox.session
def changelog(session: nox.Session) -> None:
    """Check the changelog's fragments, and that CHANGELOG.md is what they give."""
    install(session, "ansible-core", "antsibull-changelog")
    with collection(session) as folder:
        session.run("antsibull-changelog", "lint")
        session.run("antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml")
        generated = Path(session.create_tmp(), "CHANGELOG.md").resolve()
        session.run("antsibull-changelog", "generate", "--output", str(generated), "--output-format", "md")
        if generated.read_bytes() != (folder / "CHANGELOG.md").read_bytes():
            session.error(f"CHANGELOG.md differs from what the fragments give, {generated}")


@nox.session(name="docs-check")
def docs_check(session: nox.Session) -> None:
    """Check the documentation of modules and role, and the references in it."""
    install(session, "-r", str(TOOLS / "requirements-docs.txt"))
    with collection(session):
        session.run("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "all", ".")


@nox.session(name="ansible-lint")
def ansible_lint(session: nox.Session) -> None:
    """Check playbooks and roles."""
    install(session, "ansible-core", "ansible-lint")
    with collection(session):
        session.run("ansible-lint", "--offline", "--profile", "production")


@nox.session
def shellcheck(session: nox.Session) -> None:
    """Check the shell scripts, by the shellcheck that the machine has."""
    scripts = ["dev", ".ci/run", "tests/kernels/guest/init", *map(str, sorted(Path("tests/tools").glob("*.sh")))]
    session.run("shellcheck", "--external-sources", "--source-path", ".:tests/tools", *scripts, external=True)


@nox.session
def units(session: nox.Session) -> None:
    """Run the unit tests; arguments go to ansible-test, such as: -- --venv --python 3.9."""
    install(session, "ansible-core", "-r", str(TEST_IMPORTS))
    with collection(session) as folder:
        ansible_test(session, "units")
        # ansible-test is content with no tests at all.
        reports = [ElementTree.parse(path) for path in (folder / "tests/output/junit").glob("*-units.xml")]
        if not any(int(suite.get("tests", 0)) for report in reports for suite in report.iter("testsuite")):
            session.error("no unit test ran")
        if not session.posargs:
            tools = ("-m", "pytest", "-p", "no:cacheprovider", "tests/tools")
            session.run("python", *tools, env={"PYTHONPATH": str(folder / "tests")})


@nox.session
def sanity(session: nox.Session) -> None:
    """Run the sanity tests; arguments go to ansible-test."""
    install(session, "ansible-core")
    with collection(session):
        ansible_test(session, "sanity")


def install(session: nox.Session, *packages: str) -> None:
    """Install packages, in versions that the tests know; without an environment they have to be there."""
    if not is_without_environment(session):
        session.install("--constraint", str(CONSTRAINTS), *packages)


def is_without_environment(session: nox.Session) -> bool:
    return isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv)


@contextmanager
def collection(session: nox.Session) -> Iterator[Path]:
    """Enter the collection where ansible-test and mypy look for it, in a copy unless it is there already."""
    here = Path.cwd()
    if here.parts[-3:-2] == ("ansible_collections",):
        yield here
        return
    prepared = prepare_collections(session, install_in_site_packages=False, install_out_of_tree=True)
    if prepared is None:
        session.error("without an environment, call this below ansible_collections/NAMESPACE/NAME")
    with session.chdir(prepared.current_path):
        yield prepared.current_path


def ansible_test(session: nox.Session, command: str) -> None:
    session.run("python", str(TOOLS / "bootstrap_pip.py"))
    session.run("ansible-test", command, "--color", "no", *(session.posargs or ["--python", "default"]))
