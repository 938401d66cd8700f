"""Runs that somebody waits for are taken up again when their processes have ended: with the server
that began them, say."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.app import App, local_account
from pipeline.errors import GalleriaError
from pipeline.model.access import Identity
from pipeline.model.runs import Run

_log = logging.getLogger("galleria.server")


class Keeper:
    """Looks for such runs every `seconds`, and starts a process for each."""

    def __init__(self, app: App, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._account = local_account()
        self._over = threading.Event()
        self._begun: dict[tuple[str, int], float] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look once, and then again and again for the length of the `with`."""
        self._look()
        thread = threading.Thread(target=self._watch, name="keeper", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._seconds):
            self._look()

    def _look(self) -> None:
        try:
            with self._app.again() as app:
                for run in app.session(Identity(self._account)).job_runs.deserted():
                    self._begin(app, run)
        except (GalleriaError, OSError) as error:  # the catalog is away: the next look finds it
            _log.warning("runs can't be looked for: %s", error)

    def _begin(self, app: App, run: Run) -> None:
        """Start a process, unless one that was started is still about to take the run."""
        now, about = time.monotonic(), (run.id, run.token)
        if now - self._begun.get(about, -self._app.config.lease) < self._app.config.lease:
            return
        self._begun[about] = now
        _log.info("%s is taken up again", run.who)
        identity = Identity(self._account, run.principal or None)
        app.session(identity).context.later(run)
