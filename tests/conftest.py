"""What tests share: the real guest (built once, then from a cache), and what a missing tool means.

A missing tool skips a test on a laptop; with REQUIRE_TOOLS=1 (CI, the Vagrant lab) it fails it.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from adapters.process import command
from fixtures import debian
from fixtures.demonstration import Demonstration, begin_afresh
from fixtures.demonstration import run as run_demonstration

# A busy host is no failure: what is too slow is caught by the tests' own timeouts.
settings.register_profile("galleria", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI judges a change by the same examples each time; the search for new ones is for other runs.
settings.register_profile(
    "ci", parent=settings.get_profile("galleria"), derandomize=True, database=None
)
settings.load_profile("ci" if os.environ.get("REQUIRE_TOOLS") == "1" else "galleria")

# The first test that asks for the guest pays for its build: mmdebstrap and two disks.
BUILD_TIMEOUT, OWN_TIMEOUT = 1800, 60
SLOW_FIXTURES = {"guest", "guest_v2", "demonstration"}


def pytest_configure() -> None:
    """Take SIGINT again where the suite was started with it ignored (a shell's `&` does that):
    tests send it to processes that would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that may have to build a guest the time for it, beside their own."""
    for item in items:
        if set(getattr(item, "fixturenames", ())) & SLOW_FIXTURES:
            marked = item.get_closest_marker("timeout")
            own = OWN_TIMEOUT if marked is None else marked.args[0]
            item.add_marker(pytest.mark.timeout(own + BUILD_TIMEOUT), append=False)


def missing(reason: str) -> NoReturn:
    """Skip, or fail where every tool has to be there."""
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(f"REQUIRE_TOOLS=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Callable[..., None]:
    """`require("qemu-img", ...)`: these programs, or this test can't be run."""

    def check(*programs: str) -> None:
        for program in programs:
            if shutil.which(program, path=command.PATH) is None:
                missing(f"{program} is not installed")

    return check


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the work tree."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def guest(require: Callable[..., None]) -> debian.Guest:
    """The dirty Debian guest that boots by BIOS. Its files are the cache's: never write them."""
    require("mmdebstrap", "mke2fs", "sfdisk", "grub-mkimage", "debugfs")
    return debian.build("V1")


@pytest.fixture(scope="session")
def guest_v2(require: Callable[..., None]) -> debian.Guest:
    """The same guest on a GPT with an EFI system partition."""
    require("mmdebstrap", "mke2fs", "sfdisk", "grub-mkimage", "debugfs", "mkfs.vfat", "mcopy")
    return debian.build("V2")


@pytest.fixture(scope="session")
def demonstration(
    guest: debian.Guest, require: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demonstration]:
    """The demonstration, run once: two versions in three regions. Read it, do not change it."""
    require("qemu-img", "bwrap", "libguestfs-make-fixed-appliance")
    assert guest.os_disk.exists()
    home = tmp_path_factory.mktemp("demonstration") / "home"
    yield run_demonstration(home)
    begin_afresh(home)  # 2 GB that pytest would keep for three sessions
