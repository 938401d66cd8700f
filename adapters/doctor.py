"""What this host can do for galleria: every check tries the thing itself, not a version of it."""

import contextlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.catalog import catalog_file, open_catalog
from adapters.config import Config
from adapters.filesystem import calls, modes
from adapters.filesystem.profile import probe
from adapters.guestfs import accelerator, fixed
from adapters.process import cgroup, command, escape
from adapters.process.sandbox import Sandbox
from adapters.text import bytes_text, printable
from adapters.zones import open_zone, records
from adapters.zones.ownership import check_there, identify
from pipeline.errors import GalleriaError
from pipeline.gallery import descriptions
from pipeline.model.audit import AuditHead

if TYPE_CHECKING:
    from adapters.catalog.sql import SqlCatalog

SYSTEM_PYTHON = "/usr/bin/python3"
TRIAL_SECONDS = 30.0
SHOWN = 3  # of what is damaged or foreign in a zone
# An image of any use, its overlay and what preflight keeps in reserve.
LITTLE_SPACE = 4 << 30


class Status(Enum):
    """OK; WARN: works, at a cost; FAIL: the main job can't run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found. `advice` says what it costs and what to do; empty when all is well."""

    name: str
    verdict: Status
    found: str
    advice: str = ""


def run(config: Config) -> tuple[Check, ...]:
    """Check everything the main job needs. The first run may take a minute (it builds the
    appliance and tries KVM); the answers are remembered in the cache directory."""
    sandbox = Sandbox(enabled=config.sandbox)
    checks = [_sandbox(sandbox)]
    checks += [_program(name, why) for name, why in PROGRAMS]
    checks += [_module(name, package) for name, package in MODULES]
    checks += [_library(name, package, sandbox) for name, package in LIBRARIES]
    checks.append(_attempt("guestfs bindings", _bindings))
    checks += _appliance(config, sandbox)
    checks.append(_attempt("work directory", lambda: _work(config.work)))
    checks.append(_attempt("catalog", lambda: _catalog(config)))
    checks += _zones(config)
    return tuple(checks)


def can_run(checks: tuple[Check, ...]) -> bool:
    """Whether the main job can run on this host."""
    return all(check.verdict is not Status.FAIL for check in checks)


PROGRAMS = (
    ("qemu-img", "package qemu-utils: no image can be opened without it"),
    ("qemu-nbd", "package qemu-utils: snapshots inside images can't be read without it"),
    (
        f"qemu-system-{os.uname().machine}",
        "package qemu-system-x86 (Fedora: qemu-system-x86-core): no guest can be generalized",
    ),
)
MODULES = (
    ("nbd", "package python3-libnbd, in an environment with --system-site-packages"),
    ("pyvhdi", "the Python package libvhdi-python: VHD and VHDX can't be cross-checked"),
)

# what inflates compressed images, by the distribution's Python in the sandbox
LIBRARIES = (
    ("libdeflate.so.0", "package libdeflate0 (Fedora: libdeflate)"),
    ("libzstd.so.1", "package libzstd1 (Fedora: libzstd)"),
)


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    """A check that raises has found something, too."""
    try:
        return check()
    except GalleriaError as error:
        return Check(name, Status.FAIL, printable(error.message), error.hint)
    except OSError as error:
        return Check(name, Status.FAIL, printable(str(error)), "see the message")


def _sandbox(sandbox: Sandbox) -> Check:
    name = "sandbox"
    if not sandbox.enabled:
        return Check(
            name,
            Status.WARN,
            "off by configuration",
            "qemu and libguestfs read untrusted images with all of your rights; sandbox = true",
        )

    def trial() -> Check:
        found = escapes(sandbox)
        version = command.run(["bwrap", "--version"], timeout=TRIAL_SECONDS).stdout.decode()
        said = f"{version.strip()}; as user {found.user}, {len(found.shut)} ways out are shut"
        said += "" if cgroup.places() else "; memory is limited by process, without control groups"
        if found.open:
            advice = "what parses untrusted images could do this; a newer kernel or bubblewrap?"
            return Check(name, Status.WARN, f"{said}, open are: {', '.join(found.open)}", advice)
        return Check(name, Status.OK, said)

    found = _attempt(name, trial)
    if found.verdict is Status.FAIL and not found.advice:
        return Check(
            name,
            Status.FAIL,
            found.found,
            "bubblewrap needs user namespaces (sysctl user.max_user_namespaces, and on Ubuntu an"
            " AppArmor profile for bwrap); or set sandbox = false, at your own risk",
        )
    return found


@dataclass(frozen=True, slots=True)
class Escapes:
    """What became of the ways out of the sandbox, and who tried them, as the sandbox sees it."""

    shut: Mapping[str, str]
    open: Sequence[str]
    user: int
    capabilities: int


def escapes(sandbox: Sandbox, *host: str) -> Escapes:
    """Try them (`adapters.process.escape`, which says what `host` is)."""
    script = Path(escape.__file__)
    argv = ["python3", "-I", "-S", sandbox.name(script), *host]
    wrapped = sandbox.wrap(argv, read=[script], limits=command.INSPECTION)
    told = json.loads(command.run(wrapped, timeout=TRIAL_SECONDS).stdout)
    return Escapes(told["shut"], told["open"], *told["user"])


def _program(name: str, why: str) -> Check:
    if shutil.which(name, path=command.PATH) is None:
        return Check(name, Status.FAIL, "not installed", why)

    def version() -> Check:
        words = command.run([name, "--version"], timeout=TRIAL_SECONDS).stdout.decode()
        return Check(name, Status.OK, printable(words.splitlines()[0]))

    return _attempt(name, version)


def _module(name: str, package: str) -> Check:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Check(name, Status.FAIL, printable(str(error)), package)
    version = getattr(module, "get_version", None)
    return Check(name, Status.OK, str(version()) if version else "there")


def _library(name: str, package: str, sandbox: Sandbox) -> Check:
    script = f"import ctypes; ctypes.CDLL({name!r})"

    def load() -> Check:
        argv = sandbox.wrap(["python3", "-I", "-S", "-c", script])
        if command.run(argv, ok=range(256), timeout=TRIAL_SECONDS).status == 0:
            return Check(name, Status.OK, "there")
        advice = f"{package}: compressed images can't be read without it"
        return Check(name, Status.FAIL, "not installed", advice)

    return _attempt(name, load)


def _bindings() -> Check:
    script = "import guestfs; v = guestfs.GuestFS(python_return_dict=True).version(); print(v)"
    done = command.run(
        [SYSTEM_PYTHON, "-I", "-c", script],
        ok=range(256),
        timeout=TRIAL_SECONDS,
    )
    if done.status != 0:
        last = done.stderr.strip().splitlines()[-1:]
        return Check(
            "guestfs bindings",
            Status.FAIL,
            printable("".join(last) or f"{SYSTEM_PYTHON} ended with status {done.status}"),
            "package python3-guestfs (Fedora: python3-libguestfs): no guest can be generalized",
        )
    return Check("guestfs bindings", Status.OK, _version(done.stdout.decode()))


def _version(text: str) -> str:
    """`{'major': 1, 'minor': 48, 'release': 6, 'extra': ''}` as 1.48.6."""
    numbers = [
        part for part in text.replace(",", " ").replace("}", " ").split() if part.isdecimal()
    ]
    return "libguestfs " + ".".join(numbers)


def _appliance(config: Config, sandbox: Sandbox) -> list[Check]:
    """The appliance, and which accelerator works: one needs the other."""
    started = time.monotonic()
    try:
        with fixed.appliance(config.cache) as directory:
            elapsed = time.monotonic() - started
            built = f"{directory}" + (f" (built in {elapsed:.0f} s)" if elapsed > 2 else "")
            built += f"; boots slowly: {why}" if (why := fixed.slow(directory)) else ""
            found = accelerator.probe(sandbox, config.cache, directory)
    except (GalleriaError, OSError) as error:
        hint = error.hint if isinstance(error, GalleriaError) else "see the message"
        return [Check("guestfs appliance", Status.FAIL, printable(str(error)), hint)]
    slow = found.kind != "kvm"
    return [
        Check("guestfs appliance", Status.OK, built),
        Check(
            "accelerator",
            Status.WARN if slow else Status.OK,
            f"{found.kind}: {printable(' '.join(found.reason.split()))}",
            "guests are opened by software emulation: some ten seconds more for each" * slow,
        ),
    ]


def _work(directory: Path) -> Check:
    directory.mkdir(parents=True, exist_ok=True)
    probe(directory)  # tries to write
    return _space(Check("work directory", Status.OK, str(directory)), directory)


def _catalog(config: Config) -> Check:
    from sqlalchemy import make_url

    url = config.catalog
    where = make_url(url)
    shown = printable(where.render_as_string(hide_password=True))
    if _missing_file(url):
        if config.regions:  # what made them zones has made the catalog, too
            advice = (
                "galleria catalog restore puts a backup there, galleria catalog rebuild makes it "
                "again from the zones"
            )
            return Check("catalog", Status.FAIL, f"{shown} is not there", advice)
        return Check("catalog", Status.WARN, f"{shown} is not there yet", "galleria init makes it")
    with contextlib.closing(open_catalog(url)) as catalog:
        health = catalog.check()
    found = f"{shown}: {health.engine}, {health.journal}, schema {health.schema}"
    if health.problems:
        advice = (
            "galleria catalog check reads it again; galleria catalog restore puts a backup there"
        )
        return Check(
            "catalog", Status.FAIL, printable(f"{found}; {'; '.join(health.problems)}"), advice
        )
    return Check("catalog", Status.OK, f"{found}, whole")


def _missing_file(url: str) -> bool:
    """Whether a catalog in a file is not there: opening it would make it."""
    place = catalog_file(url)
    return place is not None and not place.exists()


def _zones(config: Config) -> Iterator[Check]:
    if not config.regions:
        yield Check("regions", Status.WARN, "none configured", "galleria init makes some")
    seen: list[tuple[str, Path]] = []
    directories = [place.path for places in config.regions.values() for place in places]
    for region, places in config.regions.items():
        for directory in (place.path for place in places):
            name = f"zone {region}: {directory}"
            twins = sorted({other for other, path in seen if _together(path, directory)})
            yield _attempt(name, partial(_zone, name, directory, twins, config, directories))
            seen.append((region, directory))


def _lacks(directory: Path, catalog: "SqlCatalog") -> str:
    """What a zone's records lack of the catalog, for people."""
    known = records.head_of(directory, catalog.identity) or AuditHead()
    with catalog.read() as reader:
        changed = descriptions.changed_since(reader, known)
    if changed is None:
        return "its records of the catalog are of another time"
    return f"its records of the catalog lack {len(changed)} changes" if changed else ""


def _zone(
    name: str, directory: Path, twins: list[str], config: Config, directories: list[Path]
) -> Check:
    lacks = ""
    if _missing_file(config.catalog):
        zone = open_zone(directory, sandbox=Sandbox(enabled=config.sandbox))
    else:
        with contextlib.closing(open_catalog(config.catalog)) as registry:
            check_there(directory, registry)
            zone = open_zone(directory, sandbox=Sandbox(enabled=config.sandbox))
            identify(directory, registry, directories)
            lacks = _lacks(directory, registry)
    profile = probe(directory)
    free = bytes_text(calls.free_bytes(directory))
    clones = "reflinks" if profile.reflink else "no reflinks"
    found = f"{calls.kind(directory)}, {clones}, {free} free"
    if problems := zone.damaged():
        some = "; ".join(printable(str(problem)) for problem in problems[:SHOWN])
        advice = "they cost what they stand for, and nothing is collected there meanwhile"
        return Check(name, Status.WARN, f"{found}; {len(problems)} damaged: {some}", advice)
    if degraded := _degraded(config, directory):
        advice = "galleria show names the versions; galleria repair mends what can be mended"
        return Check(name, Status.WARN, f"{found}; Degraded: {degraded}", advice)
    if lacks:
        advice = "the next change of the catalog brings them up to date, if they can be written"
        return Check(name, Status.WARN, f"{found}; {lacks}", advice)
    if foreign := zone.foreign():
        some = ", ".join(printable(str(path)) for path in foreign[:SHOWN])
        advice = "they are left alone"
        return Check(name, Status.WARN, f"{found}; not galleria's: {some}", advice)
    if advice := _modes(zone.path, config):
        return Check(
            name, Status.WARN, f"{found}; mode {zone.path.stat().st_mode & 0o7777:04o}", advice
        )
    if twins:
        advice = f"on one file system with a zone of {', '.join(twins)}: they will fail together"
        return _space(Check(name, Status.WARN, found, advice), directory)
    if not profile.reflink:
        advice = "replicas are qcow2 overlays and versions are deltas; XFS or btrfs would clone"
        return _space(Check(name, Status.OK, found, advice), directory)
    return _space(Check(name, Status.OK, found), directory)


def _modes(zone: Path, config: Config) -> str:
    """What to do where others than the user and the configured group can look into a zone."""
    group, facts = config.group_id, zone.stat()
    if group is None and facts.st_mode & modes.OTHERS:
        advice = f"others can read the images in it: chmod {modes.DIRECTORY:04o} {zone}"
    elif group is not None and (facts.st_mode & modes.OTHERS or modes.group_of(zone) != group):
        advice = (
            f"it is not for the group {config.group} alone: chgrp {config.group} {zone} && "
            f"chmod {modes.GROUPS_DIRECTORY:o} {zone}; what is in it already: see galleria guide"
            " operations"
        )
    else:
        return ""
    return printable(advice)


def _degraded(config: Config, directory: Path) -> str:
    """What was bad in a zone when it was last read."""
    if _missing_file(config.catalog):
        return ""
    with contextlib.closing(open_catalog(config.catalog)) as catalog, catalog.read() as reader:
        bad = [item for item in reader.scrubs() if item.problem and item.zone == str(directory)]
    some = "; ".join(printable(f"{item.subject}: {item.problem}") for item in bad[:SHOWN])
    more = f" and {len(bad) - SHOWN} more" * (len(bad) > SHOWN)
    return some + more


def _space(check: Check, directory: Path) -> Check:
    free = calls.free_bytes(directory)
    if free >= LITTLE_SPACE:
        return check
    advice = f"only {bytes_text(free)} free: little room for images"
    return Check(check.name, Status.WARN, check.found, advice)


def _together(one: Path, other: Path) -> bool:
    return one.is_dir() and other.is_dir() and calls.same_device(one, other)
