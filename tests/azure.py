"""A galleria that serves, over TLS, for tests with Azure's own clients."""

import json
import signal
import subprocess
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from types import NoneType
from typing import Any

from azure.mgmt.compute import models

from tests.home import GALLERIA, Home

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
TENANT = "00000000-0000-0000-0000-000000000000"


class Server:
    """A process that serves a home; `url` and `authority` (the file to trust) are what it said."""

    def __init__(self, home: Home, *options: str, port: int = 0) -> None:
        self.home = home
        self.log = home.path / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    GALLERIA,
                    "serve",
                    "--listen",
                    f"127.0.0.1:{port}",
                    "--self-signed",
                    "--json",
                    *options,
                ],
                env=home.env,
                cwd=home.path,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            said += line
        self.said = json.loads(said)
        self.url: str = self.said["url"]
        self.authority: str = self.said["authority"]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; returns its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def lines(self) -> list[dict[str, object]]:
        """What it logged of requests."""
        return [
            json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")
        ]


@contextmanager
def serving(home: Home, *options: str, port: int = 0) -> Iterator[Server]:
    server = Server(home, *options, port=port)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            assert server.stop() == 0, server.log.read_text()
        elif server.process.stdout is not None:
            server.process.stdout.close()


# --- what Azure's own models say of an answer -----------------------------------------------------


def misfits(model: Any, document: Any, path: str = "$") -> Iterator[str]:
    """What in an answer is not as the SDK's model of it: unknown members, other types, values that
    an enumeration does not have. (Its own deserializer takes all of that.)"""
    if not isinstance(document, dict):
        yield f"{path}: {document!r} is no {model.__name__}"
        return
    model({})  # the fields are known when one has been made
    fields = {item._rest_name: name for name, item in model._attr_to_rest_field.items()}
    hints = typing.get_type_hints(model, vars(models) | {"_models": models})
    for key, value in document.items():
        if key in fields:
            yield from _unfit(hints[fields[key]], value, f"{path}.{key}")
        else:
            yield f"{path}: {model.__name__} has no {key}"


def _unfit(hint: Any, value: Any, path: str) -> Iterator[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        found = [list(_unfit(item, value, path)) for item in arguments if item is not NoneType]
        enums = [item for item in arguments if isinstance(item, type) and issubclass(item, Enum)]
        if enums:  # beside a str, which would take anything
            found = [list(_unfit(item, value, path)) for item in enums]
        yield from min(found, key=len)
    elif origin in (list, dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for index, item in items:
            yield from _unfit(arguments[-1], item, f"{path}[{index}]")
    elif hint is datetime:
        if not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is None:
            yield f"{path}: {value!r} is no date"
    elif isinstance(hint, type) and issubclass(hint, Enum):
        if value not in {item.value for item in hint}:
            yield f"{path}: {value!r} is no {hint.__name__}"
    elif isinstance(hint, type) and hasattr(hint, "as_dict"):
        yield from misfits(hint, value, path)
    elif hint is float:
        if not isinstance(value, int | float):
            yield f"{path}: {value!r} is no number"
    elif hint is not typing.Any and type(value) is not hint:
        yield f"{path}: {value!r} is no {hint.__name__}"
