"""Which packages a guest has installed, by the databases of its package managers.

Formats: dpkg(1), /var/lib/dpkg/status; apk, APKINDEX(5) as /lib/apk/db/installed; pacman(8),
/var/lib/pacman/local/NAME/desc. RPM's is read by librpm (`GuestSession.rpm_packages`).
"""

import itertools
from collections.abc import Iterator

from pipeline.guest.operations import Editor
from pipeline.ports import Guest, GuestSession, Package

DATABASE_LIMIT = 64 << 20  # bytes; a full desktop's dpkg database has 6 MiB
DPKG = "/var/lib/dpkg/status"
APK = "/lib/apk/db/installed"
PACMAN = "/var/lib/pacman/local"
RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")


def installed(guest: Guest, session: GuestSession) -> tuple[Package, ...]:
    """Sorted; strings are the guest's, hostile. Where there is an RPM database nothing is mounted
    afterwards: ask this last."""
    reader = Editor(guest, "packages")  # used for its reading half
    found = {
        *_dpkg(_text(reader, DPKG)),
        *_apk(_text(reader, APK)),
        *_pacman(reader),
    }
    if any(reader.guest.names(reader.follow(directory)) for directory in RPM):
        found |= set(session.rpm_packages())
    return tuple(sorted(found, key=lambda item: (item.name, item.version, item.architecture)))


def _text(reader: Editor, path: str) -> str:
    real = reader.follow(path)
    if not reader.is_file(real):
        return ""
    return reader.guest.read(real, DATABASE_LIMIT).decode(errors="replace")


def _dpkg(text: str) -> Iterator[Package]:
    for paragraph in text.split("\n\n"):
        fields = _fields(paragraph, ": ")
        if fields.get("Status", "").split()[-1:] == ["installed"]:
            yield Package(
                fields.get("Package", ""),
                fields.get("Version", ""),
                fields.get("Architecture", ""),
                "deb",
            )


def _apk(text: str) -> Iterator[Package]:
    for paragraph in text.split("\n\n"):
        fields = _fields(paragraph, ":")
        if "P" in fields:
            yield Package(fields["P"], fields.get("V", ""), fields.get("A", ""), "apk")


def _pacman(reader: Editor) -> Iterator[Package]:
    directory = reader.follow(PACMAN)
    for name in reader.guest.names(directory):
        lines = _text(reader, f"{directory}/{name}/desc").splitlines()
        values = dict(itertools.pairwise(lines))
        if "%NAME%" in values:
            version, arch = values.get("%VERSION%", ""), values.get("%ARCH%", "")
            yield Package(values["%NAME%"], version, arch, "alpm")


def _fields(paragraph: str, separator: str) -> dict[str, str]:
    """The one-line fields of a paragraph, each as it stands first."""
    fields: dict[str, str] = {}
    for line in paragraph.splitlines():
        name, found, value = line.partition(separator)
        if found and not name.startswith((" ", "\t")):
            fields.setdefault(name, value)
    return fields
