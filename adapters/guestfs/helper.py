"""The helper process: libguestfs's calls over JSON lines, under the distribution's own Python.

Stands alone: it imports nothing of galleria, as it is run by another interpreter, in the sandbox,
where galleria's files are not. One request a line on stdin, one reply a line on stdout:

    {"call": "lstatns", "args": ["/etc/passwd"], "options": {}}
    {"result": {...}}    or    {"error": "lstatns: ...: No such file or directory"}
    {"missing": "No module named 'guestfs'"}     once, when the bindings are not there

`cpu_seconds` is the helper's own. Bytes travel as {"bytes": "<base64>"}, both ways. stderr carries
libguestfs's own messages. The end of stdin ends the process, and with it the appliance.
"""

import base64
import json
import os
import resource
import sys
from typing import Any, TextIO


def decode(value: Any) -> Any:
    """A request's value: bytes out of their envelope."""
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return base64.b64decode(value["bytes"])
    return value


def encode(value: Any) -> Any:
    """A reply's value: bytes into their envelope, pairs and mappings as JSON has them."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def cpu_seconds() -> float:
    """What libguestfs's children, qemu above all, have used until now; to be asked when they have
    ended. Nobody outside of the sandbox is told by the kernel."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def answer(handle: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do one call. What libguestfs refuses is a reply, not the end of the process."""
    if request["call"] == "cpu_seconds":
        return {"result": cpu_seconds()}
    method = getattr(handle, request["call"])
    args = [decode(value) for value in request["args"]]
    options = {key: decode(value) for key, value in request["options"].items()}
    try:
        return {"result": encode(method(*args, **options))}
    except Exception as error:  # whatever a guest makes the bindings raise
        return {"error": f"{error}"}


def serve(replies: TextIO) -> int:
    try:
        import guestfs
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return 3
    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_event_callback(
        lambda _event, _handle, text, _array: print(text, file=sys.stderr, flush=True),
        guestfs.EVENT_APPLIANCE | guestfs.EVENT_LIBRARY | guestfs.EVENT_WARNING,
    )
    for line in sys.stdin:
        print(json.dumps(answer(handle, json.loads(line))), file=replies, flush=True)
    return 0


def main() -> int:
    # qemu and other children of libguestfs inherit descriptor 1: what they print must not be
    # taken for a reply
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return serve(replies)


if __name__ == "__main__":
    sys.exit(main())
