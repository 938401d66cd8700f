"""An appliance that is started before it is needed: used, or thrown away."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import Refused
from pipeline.jobs.prepare import Started, start
from pipeline.ports import Chain, ImageFormat, Layer
from pipeline.sources.ingest import Disk


class Appliance:
    """Says how its session ended."""

    def __init__(self) -> None:
        self.chains: list[Chain] = []
        self.events: list[str] = []

    @contextmanager
    def session(self, chains: Sequence[Chain], *, writable: bool) -> Iterator[Any]:
        assert writable
        self.chains += chains
        self.events.append("started")
        try:
            yield self
        except BaseException:
            self.events.append("discarded")
            raise
        self.events.append("shut down")


def overlay(chain: Chain, path: Path) -> Chain:
    return (Layer(path, ImageFormat.QCOW2), *chain)


@pytest.fixture
def appliance() -> Appliance:
    return Appliance()


def started(appliance: Appliance, stack: ExitStack) -> Started:
    context: Any = SimpleNamespace(guests=appliance, images=SimpleNamespace(create_overlay=overlay))
    disk = Disk(None, (Layer(Path("source.raw"), ImageFormat.RAW),), 1 << 20)
    return start([disk], Path("/work"), context, stack)


def test_it_is_on_private_overlays(appliance: Appliance) -> None:
    with ExitStack() as stack:
        found = started(appliance, stack)
        assert appliance.events == ["started"]
    assert list(found.overlays) == appliance.chains
    assert [layer.path for layer in found.overlays[0]] == [
        Path("/work/os.qcow2"),
        Path("source.raw"),
    ]


def test_who_takes_it_ends_it(appliance: Appliance) -> None:
    with ExitStack() as stack:
        found = started(appliance, stack)
        with found.session(found.overlays, writable=True) as session:
            given: object = session
            assert given is appliance
            assert appliance.events == ["started"]
        assert appliance.events == ["started", "shut down"]
    assert appliance.events == ["started", "shut down"]


def test_what_is_refused_meanwhile_throws_it_away(appliance: Appliance) -> None:
    def check() -> None:
        with ExitStack() as stack:
            started(appliance, stack)
            raise Refused("the disk is not what the definition says")

    with pytest.raises(Refused):
        check()
    assert appliance.events == ["started", "discarded"]


def test_a_failure_in_it_is_no_shutdown(appliance: Appliance) -> None:
    def fail() -> None:
        with ExitStack() as stack:
            found = started(appliance, stack)
            with found.session(found.overlays, writable=True):
                raise Refused("no guest")

    with pytest.raises(Refused):
        fail()
    assert appliance.events == ["started", "discarded"]
