"""A galleria that serves, over TLS, for tests with Azure's own clients."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.home import GALLERIA, Home

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
TENANT = "00000000-0000-0000-0000-000000000000"


class Server:
    """A process that serves a home; `url` and `authority` (the file to trust) are what it said."""

    def __init__(self, home: Home, *options: str) -> None:
        self.home = home
        self.log = home.path / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [GALLERIA, "serve", "--listen", "127.0.0.1:0", "--self-signed", "--json", *options],
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
def serving(home: Home, *options: str) -> Iterator[Server]:
    server = Server(home, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            assert server.stop() == 0, server.log.read_text()
        elif server.process.stdout is not None:
            server.process.stdout.close()
