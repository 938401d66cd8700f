"""How each row is run."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.ports import Chain, ImageFormat, Layer
from tests.bench import contenders as c
from tests.bench.contenders import Galleria, Timing
from tests.bench.data import Data, become
from tests.bench.disks import Volumes, flush, used, volumes
from tests.bench.generalize import measure as measure_generalizing
from tests.bench.stores import LIMIT, STORES, Store

# A contender that takes longer is run once, not in every round.
SLOW = 20.0
THREE = {"eu": 2, "us": 2, "asia": 2}
ONE = {"eu": 1}
CLI = "from adapters.cli import main; main()"

Once = Callable[[], Mapping[str, Timing]]  # runs a contender; its timings by name


@dataclass(slots=True)
class Runs:
    """The timings of a cell by contender, and what there is to say of it."""

    timings: dict[str, list[Timing]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Bench:
    """What a cell is measured with: data, the one disk, a directory to work in, the file system."""

    data: Data
    disk: Path
    work: Path
    rounds: int
    system: str
    _homes: int = 0

    @contextmanager
    def volumes(self, count: int = 1) -> Iterator[Volumes]:
        with volumes(self.system, self.disk, self.work, count) as found:
            yield found

    @contextmanager
    def galleria(
        self, regions: Mapping[str, Path], below: Path | None = None
    ) -> Iterator[Galleria]:
        """A fresh one; its state is in the work directory, or on the file system `below`."""
        self._homes += 1
        home = (below or self.work) / f"home-{self._homes}"
        try:
            with c.galleria(home, regions) as found:
                yield found
        finally:
            shutil.rmtree(home)

    def interleave(self, contenders: Mapping[str, Once]) -> Runs:
        """Run every contender once a round, each round beginning with another one."""
        runs = Runs()
        names = list(contenders)
        left = dict(contenders)
        for number in range(self.rounds):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                if name not in left:
                    continue
                try:
                    timings = left[name]()
                except c.TooSlow as error:
                    runs.notes.append(str(error))
                    del left[name]
                    continue
                for part, timing in timings.items():
                    runs.timings.setdefault(part, []).append(timing)
                if name != "galleria" and timings[name].wall > SLOW:
                    del left[name]
        return runs


Run = Callable[[Bench], Runs]


def _files(made: Mapping[str, Any]) -> list[Chain]:
    """Every base and replica, as qemu finds it by the names in its header."""
    tops = [base[0] for base in made["bases"]]
    tops += [disk for replica in made["replicas"] for disk in replica]
    return [(Layer(Path(path), ImageFormat(kind)),) for path, kind in tops]


def _check_all(made: Mapping[str, Any], expected: Chain) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda chain: c.check(chain, expected), _files(made)))


def _paths(chain: Chain) -> list[Path]:
    return [layer.path for layer in chain]


def _amount(bench: Bench, name: str) -> int:
    return int(bench.data.facts(name)["data"])


# --- one image, one base -------------------------------------------------------------------------


def one_base(name: str, *, beside: bool = False) -> Run:
    """A disk of the data published into one region. `beside`: source, zone and state are on one
    file system."""

    def run(bench: Bench) -> Runs:
        expected = bench.data.content(name)
        with bench.volumes() as place:

            def source() -> Chain:
                place.renew()
                chain = bench.data.chain(name)
                if beside:
                    target = place.path / "source"
                    _copy(chain[0].path, target)
                    chain = (Layer(target, chain[0].format),)
                c.page_cached(*_paths(chain))
                return chain

            def ours() -> Mapping[str, Timing]:
                chain = source()
                prepared, given = _prepared(bench, name, chain)
                below = place.path if beside else None
                with bench.galleria({"eu": place.path / "eu"}, below) as galleria:
                    timing, made = galleria.publish("1.0.0", given, ONE, prepared)
                    _check_all(made, expected)
                return {"galleria": timing}

            def theirs() -> Mapping[str, Timing]:
                chain = source()
                target = place.path / "out.raw"
                timing = c.qemu_img(chain, target)
                c.check((Layer(target, ImageFormat.RAW),), chain)
                return {"qemu-img": timing}

            return bench.interleave(
                {
                    "galleria": ours,
                    "qemu-img": theirs,
                    "write": _writing(place, _amount(bench, expected[0].path.name)),
                    "hash": _hashing(bench, place, source),
                }
            )

    return run


def _prepared(bench: Bench, name: str, chain: Chain) -> tuple[dict[str, Any] | None, Chain]:
    """What generalization has left of a disk, and the disk that it was given."""
    if name != "overlay.qcow2":
        return None, chain
    layers = [(str(layer.path), layer.format.value) for layer in chain]
    free = [(area.start, area.length) for area in bench.data.free()]
    return {"chain": layers, "free": free}, chain[1:]


def _writing(place: Volumes, amount: int) -> Once:
    """How long the same number of bytes takes to be written by themselves, onto each of the file
    systems in turn."""

    def run() -> Mapping[str, Timing]:
        place.renew()
        parts = [c.write_only(path, amount) for path in place.paths]
        return {"write": Timing(sum(p.wall for p in parts), sum(p.cpu for p in parts))}

    return run


def _hashing(bench: Bench, place: Volumes, source: Callable[[], Chain]) -> Once:
    """How long the source takes to be read and its digests to be computed; nothing is written."""

    def run() -> Mapping[str, Timing]:
        chain = source()
        with bench.galleria({"eu": place.path / "eu"}) as galleria:
            return {"hash": galleria.hash(chain)}

    return run


def random_data(bench: Bench) -> Runs:
    chain = bench.data.chain("random.raw")
    with bench.volumes() as place:

        def ours() -> Mapping[str, Timing]:
            place.renew()
            c.page_cached(*_paths(chain))
            with bench.galleria({"eu": place.path / "eu"}) as galleria:
                timing, made = galleria.publish("1.0.0", chain, ONE)
                _check_all(made, chain)
            return {"galleria": timing}

        def theirs() -> Mapping[str, Timing]:
            place.renew()
            c.page_cached(*_paths(chain))
            target = place.path / "out.raw"
            timing = c.copy(chain[0].path, target)
            c.check((Layer(target, ImageFormat.RAW),), chain)
            return {"cp": timing}

        return bench.interleave(
            {
                "galleria": ours,
                "cp": theirs,
                "write": _writing(place, _amount(bench, "random.raw")),
            }
        )


def sparse(bench: Bench) -> Runs:
    with bench.volumes() as place:

        def publish(name: str) -> Timing:
            chain = bench.data.chain(name)
            place.renew()
            c.page_cached(*_paths(chain))
            with bench.galleria({"eu": place.path / "eu"}) as galleria:
                timing, made = galleria.publish("1.0.0", chain, ONE)
                _check_all(made, chain)
            return timing

        return bench.interleave(
            {
                "galleria": lambda: {"galleria": publish("sparse.raw")},
                "ordinary disk": lambda: {"ordinary disk": publish("v1.raw")},
            }
        )


# --- regions and versions ------------------------------------------------------------------------


def _regions(place: Volumes) -> dict[str, Path]:
    count = len(place.paths)
    return {name: place.paths[n % count] / name for n, name in enumerate(THREE)}


def regions(disks: int) -> Run:
    """Three regions with two replicas each, on one file system or on each its own."""

    def run(bench: Bench) -> Runs:
        chain = bench.data.chain("v1.raw")
        copies = len(THREE) if bench.system == "ext4" else 1
        with bench.volumes(disks) as place:

            def ours() -> Mapping[str, Timing]:
                place.renew()
                c.page_cached(*_paths(chain))
                with bench.galleria(_regions(place)) as galleria:
                    timing, made = galleria.publish("1.0.0", chain, THREE)
                    _check_all(made, chain)
                return {"galleria": timing}

            def theirs() -> Mapping[str, Timing]:
                place.renew()
                c.page_cached(*_paths(chain))
                target = place.path / "out.raw"
                timing = c.qemu_img(chain, target)
                c.check((Layer(target, ImageFormat.RAW),), chain)
                return {"qemu-img": timing}

            return bench.interleave(
                {
                    "galleria": ours,
                    "qemu-img": theirs,
                    "write": _writing(place, _amount(bench, "v1.raw") * copies),
                }
            )

    return run


def _stored(place: Volumes, work: Callable[[], tuple[Timing, dict[str, Any]]]) -> Any:
    """Do it; note in its timing what the file systems have used for it."""
    before = sum(used(path) for path in place.paths)
    timing, made = work()
    timing.stored = sum(used(path) for path in place.paths) - before
    return timing, made


def next_version(bench: Bench) -> Runs:
    """Publish v1, which is the peer, and v2 after it."""
    first, second = bench.data.chain("v1.raw"), bench.data.chain("v2.raw")
    with bench.volumes() as place:

        def ours() -> Mapping[str, Timing]:
            place.renew()
            c.page_cached(*_paths(first), *_paths(second))
            with bench.galleria(_regions(place)) as galleria:
                full, one = _stored(place, lambda: galleria.publish("1.0.0", first, THREE))
                following, two = _stored(place, lambda: galleria.publish("1.0.1", second, THREE))
                _check_all(one, first)
                _check_all(two, second)
            return {"galleria": following, "full publish": full}

        def source() -> Chain:
            place.renew()
            c.page_cached(*_paths(second))
            return second

        changed = int(bench.data.facts("v2.raw")["changed"][str(256 << 10)])
        return bench.interleave(
            {
                "galleria": ours,
                "write": _writing(place, changed),
                "hash": _hashing(bench, place, source),
            }
        )


def goes_on(bench: Bench) -> Runs:
    """The next version of a machine that went on: its disk lies beside the zones, as the state
    does, and between the versions it was written to in place. The peer converts what it then is."""
    first, second = bench.data.chain("v1.raw"), bench.data.chain("v2.raw")
    with bench.volumes() as place:

        def source() -> Chain:
            place.renew()
            disk = place.path / "disk.raw"
            _copy(first[0].path, disk)
            return (Layer(disk, ImageFormat.RAW),)

        def went_on(chain: Chain) -> None:
            become(chain[0].path, second[0].path)
            flush(place.path)
            c.page_cached(*_paths(chain))

        def ours() -> Mapping[str, Timing]:
            chain = source()
            with bench.galleria(_regions(place), place.path) as galleria:
                galleria.publish("1.0.0", chain, THREE)
                went_on(chain)
                timing, made = _stored(place, lambda: galleria.publish("1.0.1", chain, THREE))
                _check_all(made, second)
            return {"galleria": timing}

        def theirs() -> Mapping[str, Timing]:
            chain = source()
            went_on(chain)
            target = place.path / "out.raw"
            timing = c.qemu_img(chain, target)
            c.check((Layer(target, ImageFormat.RAW),), second)
            return {"qemu-img": timing}

        changed = int(bench.data.facts("v2.raw")["changed"][str(256 << 10)])
        return bench.interleave(
            {"galleria": ours, "qemu-img": theirs, "write": _writing(place, changed)}
        )


def against_stores(bench: Bench) -> Runs:
    """v3 after v1, in galleria and in each peer, which all have v1 already."""
    first, third = bench.data.chain("v1.raw"), bench.data.chain("v3.raw")
    with bench.volumes() as place:

        def ours() -> Mapping[str, Timing]:
            place.renew()
            with bench.galleria({"eu": place.path / "eu"}) as galleria:
                galleria.publish("1.0.0", first, ONE)
                c.page_cached(*_paths(third))
                timing, made = _stored(place, lambda: galleria.publish("1.0.1", third, ONE))
                _check_all(made, third)
            return {"galleria": timing}

        def rsync() -> Mapping[str, Timing]:
            """Onto a copy of v1, a clone where that can be; making it is not timed."""
            place.renew()
            old, target = place.path / "v1.raw", place.path / "v3.raw"
            _copy(first[0].path, old)

            def work() -> tuple[Timing, dict[str, Any]]:
                _copy(old, target)
                flush(place.path)
                c.page_cached(*_paths(third), target)
                argv = ("rsync", "--inplace", "--no-whole-file", third[0].path, target)
                return c.command(*argv, target=place.path, limit=LIMIT), {}

            timing, _ = _stored(place, work)
            c.check((Layer(target, ImageFormat.RAW),), third)
            return {"rsync": timing}

        others = {store.name: _storing(bench, place, store, third[0].path) for store in STORES}
        return bench.interleave({"galleria": ours, "rsync": rsync, **others})


def _storing(bench: Bench, place: Volumes, store: Store, image: Path) -> Once:
    def run() -> Mapping[str, Timing]:
        filled = bench.data.store(f"store-{store.name}", store.fill)
        place.renew()
        directory = place.path / store.name
        shutil.copytree(filled, directory, symlinks=True)
        flush(place.path)
        c.page_cached(image)

        def work() -> tuple[Timing, dict[str, Any]]:
            argv = store.add(image, directory, "v3")
            env = store.env(directory)
            return c.command(*argv, target=place.path, env=env, limit=LIMIT), {}

        return {store.name: _stored(place, work)[0]}

    return run


def _copy(source: Path, target: Path) -> None:
    c.command("cp", "--sparse=always", "--reflink=auto", source, target, target=target.parent)


# --- reading back --------------------------------------------------------------------------------


@contextmanager
def _published(bench: Bench, replicas: int) -> Iterator[tuple[Volumes, Galleria, dict[str, Any]]]:
    """A galleria with v1 in one region."""
    with (
        bench.volumes() as place,
        bench.galleria({"eu": place.path / "eu"}) as galleria,
    ):
        _, made = galleria.publish("1.0.0", bench.data.chain("v1.raw"), {"eu": replicas})
        flush(place.path)
        yield place, galleria, made


def scrub(bench: Bench) -> Runs:
    with _published(bench, 1) as (_, galleria, made):
        base = Path(made["bases"][0][0][0])

        def ours() -> Mapping[str, Timing]:
            c.cool(base)
            return {"galleria": galleria.verify("1.0.0", "base os", scrub=True)}

        def theirs() -> Mapping[str, Timing]:
            c.cool(base)
            return {"O_DIRECT read": c.read_direct(base)}

        return bench.interleave({"galleria": ours, "O_DIRECT read": theirs})


def verify(bench: Bench) -> Runs:
    with _published(bench, 1) as (_, galleria, made):
        base, replica = Path(made["bases"][0][0][0]), Path(made["replicas"][0][0][0])

        def ours() -> Mapping[str, Timing]:
            c.page_cached(base, replica)
            return {"galleria": galleria.verify("1.0.0", "replica 0 os")}

        def theirs() -> Mapping[str, Timing]:
            c.page_cached(base, replica)
            return {"cmp": c.command("cmp", base, replica, target=None)}

        return bench.interleave({"galleria": ours, "cmp": theirs})


def deploy(bench: Bench) -> Runs:
    with _published(bench, 2) as (place, galleria, _):
        numbers = iter(range(bench.rounds))

        def ours() -> Mapping[str, Timing]:
            out = place.path / f"vms-{next(numbers)}"
            argv = (sys.executable, "-c", CLI, "deploy", "corp/disk/1.0.0", "--region", "eu")
            options = ("--name", out.name, "--count", "100", "--out", out)
            timing = c.command(
                *argv, *options, target=None, env=c.environment(galleria.home), cwd=c.ROOT
            )
            disks = sorted(out.glob("*/os.*"))
            assert len(disks) == 100, f"{len(disks)} disks were deployed"
            for disk in (disks[0], disks[50], disks[99]):
                kind = ImageFormat.RAW if disk.suffix == ".raw" else ImageFormat.QCOW2
                c.check(((Layer(disk, kind)),), bench.data.chain("v1.raw"))
            return {"galleria": timing}

        return bench.interleave({"galleria": ours})


def generalize(bench: Bench) -> Runs:
    """Once: it takes minutes where there is no KVM."""
    seconds = measure_generalizing(bench.work)
    ours = seconds.pop("galleria")
    runs = Runs(notes=[", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.items())])
    runs.timings["galleria"] = [Timing(ours)]
    runs.timings["virt-inspector, -sysprep and -sparsify"] = [Timing(sum(seconds.values()))]
    return runs


OPENED = 86
# Ends galleria at the first opening of its source.
UNTIL_READ = f"""
import os, sys
source = sys.argv.pop(1)
def opened(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        if os.fspath(arguments[0]) == source:
            os._exit({OPENED})
sys.addaudithook(opened)
{CLI}
"""


def startup(bench: Bench) -> Runs:
    source = bench.data.file("v1.raw")
    with _published(bench, 1) as (_, galleria, _):

        def ours() -> Mapping[str, Timing]:
            argv: Sequence[str | Path] = (
                *(sys.executable, "-c", UNTIL_READ, source, "publish", "corp/disk/2.0.0"),
                *("--os-disk", source, "--target-region", "eu=1"),
            )
            env = c.environment(galleria.home)
            return {"galleria": c.command(*argv, target=None, env=env, cwd=c.ROOT, ok=OPENED)}

        return bench.interleave({"galleria": ours})
