"""A parser of untrusted bytes: a program of its own, run in the sandbox by
`adapters.process.parsing`.

    parser.py MODULE ADAPTERS PIPELINE [DIRECTORY...] -- [ARGUMENT...]

Imports MODULE and prints what its function `answer` makes of the arguments, or the refusal that it
raised: one JSON object. galleria's packages are ADAPTERS and PIPELINE; other modules are in one of
DIRECTORY. Packages are made by hand: what theirs import takes 0.2 s, and parses nothing.
"""

import importlib
import json
import os
import sys
from types import ModuleType

PACKAGES = ("", ".images", ".sources", ".process", ".filesystem", ".model", ".ports", ".data")


def provide(name: str, directory: str) -> None:
    """Make a package and those in it importable, without what their `__init__` does."""
    for inner in PACKAGES:
        package = ModuleType(name + inner)
        package.__path__ = [directory + inner.replace(".", "/")]
        sys.modules[package.__name__] = package


def main() -> None:
    module, adapters, pipeline, *rest = sys.argv[1:]
    end = rest.index("--")
    sys.path += rest[:end]
    provide("adapters", adapters)
    provide("pipeline", pipeline)
    from pipeline.errors import GalleriaError

    try:
        answer = importlib.import_module(module).answer(*rest[end + 1 :])
    except GalleriaError as error:
        answer = {"refused": [type(error).__name__, error.message, error.hint]}
    print(json.dumps(answer), flush=True)
    # every object was made for this one answer: not one of them has to be taken apart
    os._exit(0)


if __name__ == "__main__":
    main()
