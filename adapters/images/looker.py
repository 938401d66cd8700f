"""The first reader of an image file: a program of its own, run in the sandbox.

    looker.py DESCRIPTOR LIMIT ADAPTERS PIPELINE [DIRECTORY...]

Looks at the headers and tables of the open file DESCRIPTOR with galleria's own parsers, whose
packages are ADAPTERS and PIPELINE, and with oslo.utils' (from one of DIRECTORY): one JSON object.
LIMIT is the largest virtual size. Packages are made by hand: what theirs import takes 0.2 s, and
has nothing to do with headers.
"""

import json
import os
import sys
from types import ModuleType
from typing import Any

PACKAGES = ("", ".images", ".model", ".ports", ".data")


def provide(name: str, directory: str) -> None:
    """Make a package and those in it importable, without what their `__init__` does."""
    for inner in PACKAGES:
        package = ModuleType(name + inner)
        package.__path__ = [directory + inner.replace(".", "/")]
        sys.modules[package.__name__] = package


def look(fd: int, limit: int) -> dict[str, Any]:
    from adapters.formats import Window
    from adapters.images import headers
    from pipeline.errors import UnsafeImage

    format, doubts = headers.detect_format(Window(fd))
    findings = headers.inspect_as(fd, format, headers.Policy(virtual_size=limit))
    answer: dict[str, Any] = {"format": format.value, "doubts": doubts}
    if not findings.refusals and not doubts:
        try:
            has_backing = bool(findings.references)
            answer["size"] = headers.oslo(fd, format, has_backing=has_backing)
        except UnsafeImage as error:
            answer["unsafe"] = error.message
    return {**answer, **headers.spelled(findings)}


def main() -> None:
    fd, limit, adapters, pipeline, *directories = sys.argv[1:]
    sys.path += directories
    provide("adapters", adapters)
    provide("pipeline", pipeline)
    print(json.dumps(look(int(fd), int(limit))), flush=True)
    # every object was made for this one answer: not one of them has to be taken apart
    os._exit(0)


if __name__ == "__main__":
    main()
