"""The units of systemd that a guest starts, and the accounts that they run as."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from pipeline.guest.operations import Editor, lines_of

DIRECTORIES = (
    *("/etc/systemd/system", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system"),
)
STARTERS = (".timer", ".socket", ".path")  # of a service of the same name


def enabled(reader: Editor) -> list[str]:
    """Names of the units that something wants or requires, and of the services that timers,
    sockets and paths among them start."""
    found = set()
    for directory in DIRECTORIES:
        for kind in ("wants", "requires", "upholds"):
            found |= {
                PurePosixPath(path).name for path in reader.guest.glob(f"{directory}/*.{kind}/*")
            }
    for name in list(found):
        stem = name
        for ending in STARTERS:
            stem = stem.removesuffix(ending)
        if stem != name:
            found.add(f"{stem}.service")
    return sorted(found)


def is_enabled(reader: Editor, *names: str) -> bool:
    """Whether the guest starts one of these units."""
    return runs_systemd(reader) and bool(set(names) & set(enabled(reader)))


def runs_systemd(reader: Editor) -> bool:
    """Whether the guest's init is systemd. Packages bring their units to all others, too: to those
    of System V, OpenRC and runit, where nothing starts them."""
    real = reader.follow("/sbin/init")
    return PurePosixPath(real).name == "systemd" or not reader.is_file(real)


def text(reader: Editor, name: str) -> str:
    """A unit's own text with its drop-ins; of an instance, its template's."""
    stem, _, ending = name.rpartition(".")
    template = f"{stem.partition('@')[0]}@.{ending}" if "@" in stem else name
    parts = []
    for wanted in dict.fromkeys((name, template)):
        paths = (f"{directory}/{wanted}" for directory in DIRECTORIES)
        unit = next((found for path in paths if (found := reader.text(path))), "")
        parts.append(unit)
        for directory in DIRECTORIES:
            for path in reader.guest.glob(f"{directory}/{wanted}.d/*.conf"):
                parts.append(reader.text(path))
    return "\n".join(part for part in parts if part)


def users(reader: Editor) -> dict[str, str]:
    """The accounts that enabled services run as -> the first such service."""
    found: dict[str, str] = {}
    for name in enabled(reader):
        if name.endswith(".service"):
            for user in _users(text(reader, name), name):
                found.setdefault(user, name)
    return found


def _users(unit: str, name: str) -> Iterator[str]:
    instance = name.removesuffix(".service").partition("@")[2]
    for line in lines_of(unit):
        key, mark, value = line.partition("=")
        if mark and key.strip() == "User":
            yield instance if value.strip() in ("%i", "%I") else value.strip()
