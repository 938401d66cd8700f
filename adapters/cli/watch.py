"""`galleria show --watch`: a version while it is made, from any terminal."""

import sys
import time

from adapters.cli.context import Settings, own_version
from adapters.text import printable
from pipeline.errors import PartiallyReplicated
from pipeline.gallery.documents import encode
from pipeline.model import ImageVersion, ProvisioningState, ReplicationState

SECONDS = 0.5
GRACE_SECONDS = 10.0  # in which a background process takes a version over
_WIDTH = 30
_UP = "\x1b[{}A\x1b[J"  # ECMA-48: cursor up, erase what is below


def watch(settings: Settings, reference: str) -> int:
    """Show how far each region is until nobody works on the version any more: redrawn on a
    terminal, else a line for every change. Returns the exit status that the version deserves."""
    with settings.app() as app:
        version = own_version(app, reference)
        shown: list[str] = []
        idle = 0.0
        while True:
            lines = [_line(version, index) for index in range(len(version.regions))]
            _show(settings, version, lines, shown)
            shown = lines
            if _ended(version):
                break
            # nobody has it: a background process may be about to
            idle = idle + SECONDS if app.gallery.is_interrupted(version) else 0.0
            if idle >= GRACE_SECONDS:
                break
            time.sleep(SECONDS)
            version = app.gallery.get_version(version.name)
        interrupted = app.gallery.is_interrupted(version)
    return _finish(settings, version, interrupted=interrupted)


def _ended(version: ImageVersion) -> bool:
    return version.provisioning_state in (ProvisioningState.SUCCEEDED, ProvisioningState.FAILED)


def _line(version: ImageVersion, index: int) -> str:
    status = version.regions[index]
    filled = _WIDTH * status.progress // 100
    bar = "#" * filled + "." * (_WIDTH - filled)
    text = f"{status.region}  [{bar}] {status.progress:3d} %  {status.state.value}"
    return printable(f"{text}  {status.details}" if status.details else text)


def _show(settings: Settings, version: ImageVersion, lines: list[str], shown: list[str]) -> None:
    if settings.json:
        if lines != shown:
            settings.emit_json({"version": encode(version)})
            sys.stdout.flush()
        return
    if sys.stdout.isatty():
        if shown:
            sys.stdout.write(_UP.format(len(shown)))
        sys.stdout.write("\n".join(lines) + "\n")
    else:
        for line in lines:
            if line not in shown:
                print(line)
    sys.stdout.flush()


def _finish(settings: Settings, version: ImageVersion, *, interrupted: bool) -> int:
    if interrupted:
        text = "the process that worked on it is gone: the same command continues"
    else:
        text = f"replication {version.aggregated_state.value}"
    if not settings.json:
        print(f"{version.name}: {version.provisioning_state.value}, {text}")
    failed = any(status.state is ReplicationState.FAILED for status in version.regions)
    return PartiallyReplicated.exit_status if failed or interrupted else 0
