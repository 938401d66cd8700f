"""The wired application, for tests that do without the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.app import Session, local_account, open_app
from adapters.config import Config
from adapters.progress import Mode, open_progress
from pipeline.model.access import Identity


@contextmanager
def open_session(config: Config, principal: str | None = None) -> Iterator[Session]:
    """The application for the local operator, or for a principal."""
    with open_app(config, open_progress(Mode.NONE)) as app:
        yield app.session(Identity(local_account(), principal))
