"""Scripts in the appliance, for what libguestfs has no call for. Any bytes, any length of output.

The script goes in escaped and its output comes out as base64: libguestfs's bindings take and give
only UTF-8, and a message ends at 4 MiB. Nothing of it runs on the host. Under software emulation
starting a program costs 30 ms, so as few as possible are started around the script itself.
"""

import base64
import shlex

from adapters.guestfs.process import CALL_SECONDS, CallFailed, Helper
from pipeline.data.extents import SECTOR
from pipeline.errors import StageFailed
from pipeline.ports.extents import Range

OUTPUT, ERRORS = "/tmp/galleria.out", "/tmp/galleria.err"  # noqa: S108 - in the appliance
PAGE = 2 << 20  # bytes before base64
ZERO_SECONDS = 3600.0
LONGEST_SECTOR = 4096


def quote(word: str) -> str:
    """One word of a script, whatever bytes it has; undecodable ones are surrogate escapes."""
    return shlex.quote(word)


def run_script(helper: Helper, script: str, *, timeout: float = CALL_SECONDS) -> bytes:
    """Run a bash script in the appliance and return its stdout. Raises StageFailed with its
    stderr when it ends with a status other than 0: libguestfs would mix the two, and what find(1)
    says of a path that is too long has no place in what is decoded."""
    whole = f"set -o pipefail; {script}\n".encode("utf-8", "surrogateescape")
    try:
        page = helper.call(
            "debug",
            "sh",
            [
                f"if printf %b {_escaped(whole)} | LC_ALL=C bash > {OUTPUT} 2> {ERRORS}; "
                f"then head -c {PAGE} {OUTPUT} | base64 -w0; "
                f"else tail -c 2000 {ERRORS} >&2; exit 1; fi"
            ],
            timeout=timeout,
        )
    except CallFailed as error:
        raise StageFailed(f"a step in the appliance failed: {error.message}") from error
    output = _decoded(page)
    while len(output) % PAGE == 0 and len(output) > 0:
        command = f"tail -c +{len(output) + 1} {OUTPUT} | head -c {PAGE} | base64 -w0"
        if not (page := helper.call("debug", "sh", [command])):
            break
        output += _decoded(page)
    return output


def _decoded(page: str) -> bytes:
    try:
        return base64.b64decode(page, validate=True)
    except ValueError as error:
        raise StageFailed(f"a step in the appliance answered with no base64: {error}") from None


def _escaped(script: bytes) -> str:
    """A word for the `printf %b` of POSIX shells: all but plain characters in octal."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./=:,+"
    return "'" + "".join(chr(c) if c in plain else f"\\0{c:03o}" for c in script) + "'"


def zeroing(item: Range, node: str) -> str:
    """The script that writes zeros to a range of a (quoted) device: fast where sectors are whole,
    of whatever length; the ends through the page cache."""
    steps = []
    start, end = (
        -(-item.start // LONGEST_SECTOR) * LONGEST_SECTOR,
        item.end // LONGEST_SECTOR * LONGEST_SECTOR,
    )
    if start < end:
        steps.append(f"blkdiscard -f -z -o {start} -l {end - start} {node} 2>/dev/null")
    ends = [(item.start, start), (end, item.end)] if start < end else [(item.start, item.end)]
    for first, last in ends:
        if first < last:
            steps.append(
                f"dd if=/dev/zero of={node} bs={SECTOR} seek={first // SECTOR} "
                f"count={(last - first) // SECTOR} conv=notrunc 2>/dev/null"
            )
    return "\n".join(steps)
