"""Scripts in the appliance, for what libguestfs has no call for. Any bytes, any length of output.

The script goes in as base64 and its output comes out so: libguestfs's bindings take and give only
UTF-8, and a message ends at 4 MiB. Nothing of it runs on the host.
"""

import base64
import gzip
import shlex

from adapters.guestfs.process import CALL_SECONDS, CallFailed, Helper
from pipeline.errors import StageFailed

OUTPUT = "/tmp/galleria.out"  # noqa: S108 - in the appliance
PAGE = 2 << 20  # bytes before base64


def quote(word: str) -> str:
    """One word of a script, whatever bytes it has; undecodable ones are surrogate escapes."""
    return shlex.quote(word)


def run_script(helper: Helper, script: str, *, timeout: float = CALL_SECONDS) -> bytes:
    """Run a bash script in the appliance and return its stdout. Raises StageFailed with its
    stderr when it ends with a status other than 0."""
    whole = f"set -o pipefail; {{ {script}\n}} | gzip -1"
    encoded = base64.b64encode(whole.encode("utf-8", "surrogateescape")).decode()
    try:
        first = helper.call(
            "debug",
            "sh",
            [
                f"echo {encoded} | base64 -d | LC_ALL=C bash > {OUTPUT} && "
                f"stat -c %s {OUTPUT} && head -c {PAGE} {OUTPUT} | base64 -w0"
            ],
            timeout=timeout,
        )
    except CallFailed as error:
        raise StageFailed(f"a step in the appliance failed: {error.message}") from error
    length, _, page = first.partition("\n")
    packed = base64.b64decode(page)
    while len(packed) < int(length):
        command = f"tail -c +{len(packed) + 1} {OUTPUT} | head -c {PAGE} | base64 -w0"
        packed += base64.b64decode(helper.call("debug", "sh", [command]))
    return gzip.decompress(packed)
