"""What every command shares: the global options, the configuration, the application, output."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The model is imported where it is used: `galleria --help` needs none of it.
if TYPE_CHECKING:
    from adapters.app import App, Session
    from adapters.config import Config
    from adapters.guestfs.luks import Key
    from adapters.progress import Mode
    from pipeline.errors import GalleriaError
    from pipeline.model.access import Identity
    from pipeline.ports import Progress

SCHEMA_VERSION = 1
CHANGES = (
    2  # the status of `plan --detailed-exitcode`, as Terraform has it: something is to be done
)


@dataclass(slots=True)
class Settings:
    """The global options. They may stand before the command or after it, so each sets its own."""

    config: Path | None = None
    principal: str | None = None
    given_subscription: str | None = None
    given_group: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: str = "auto"
    detailed: bool = False  # 2 says that there is something to do, so mistakes in usage have 1
    keys: tuple[str, ...] = ()  # of encrypted volumes, as `parse_key` reads them

    @property
    def subscription(self) -> str:
        """The subscription of short names: as given, or the default one."""
        from pipeline.model.names import DEFAULT_SUBSCRIPTION

        return DEFAULT_SUBSCRIPTION if self.given_subscription is None else self.given_subscription

    @property
    def resource_group(self) -> str:
        """The resource group of short names: as given, or the default one."""
        from pipeline.model.names import DEFAULT_RESOURCE_GROUP

        return DEFAULT_RESOURCE_GROUP if self.given_group is None else self.given_group

    def status(self, error: "GalleriaError") -> int:
        """The exit status of an error."""
        return 1 if self.detailed and error.exit_status == CHANGES else error.exit_status

    def load(self) -> "Config":
        """The configuration."""
        from adapters.config import load_config

        return load_config(self.config)

    def identity(self) -> "Identity":
        """Who asks: the principal of --as, else the configured one, else the local operator."""
        from adapters.app import local_account
        from adapters.config import load_principal
        from pipeline.model.access import Identity

        principal = self.principal
        if principal is None:
            principal, _ = load_principal(self.config)
        return Identity(local_account(), principal or None)

    @property
    def progress_mode(self) -> "Mode":
        """How progress is shown."""
        from adapters.progress import Mode

        return Mode.NONE if self.quiet else Mode(self.progress)

    def open_progress(self) -> "Progress":
        """Where stages report how far they are."""
        from adapters.progress import open_progress

        return open_progress(self.progress_mode)

    @contextmanager
    def session(self, progress: "Progress | None" = None) -> Iterator["Session"]:
        """The application for whoever runs the command, for the length of a `with`. `progress` is
        where it reports, if not where the command does."""
        from adapters.app import open_app
        from pipeline.errors import NotFound
        from pipeline.gallery.missing import explain_missing

        config, progress = self.load(), progress or self.open_progress()
        with open_app(config, progress, keys=self._parsed_keys()) as app:
            session = app.session(self.identity())
            try:
                yield session
            except NotFound as error:
                if error.named is not None:
                    explain_missing(error, session.gallery)
                raise

    @contextmanager
    def served(self) -> Iterator["App"]:
        """The application for a server, which gives each caller a session."""
        from adapters.app import open_app
        from adapters.progress import Mode, open_progress

        with open_app(self.load(), open_progress(Mode.NONE)) as app:
            yield app

    def _parsed_keys(self) -> "list[Key]":
        if not self.keys:
            return []
        from adapters.guestfs.luks import parse_key

        return [parse_key(text) for text in self.keys]

    def emit(self, document: Mapping[str, Any], text: str) -> None:
        """Print a command's result: the document with --json, else the text."""
        if self.json:
            self.emit_json(document)
        elif text:
            print(text)

    def emit_json(self, document: Mapping[str, Any]) -> None:
        """Print one JSON object with its schema version."""
        self.emit_document({"schemaVersion": SCHEMA_VERSION, **document})

    def emit_document(self, document: Mapping[str, Any]) -> None:
        """Print a JSON object of somebody else's schema, as it is."""
        json.dump(document, sys.stdout, indent=2, default=plain)
        sys.stdout.write("\n")


def short_id(id: str) -> str:
    """The short name of what is in the default subscription and resource group."""
    from pipeline.model.names import GalleryName

    default = GalleryName("x").arm_id.removesuffix("galleries/x")
    if not id.lower().startswith(default.lower()):
        return id
    return "/".join(id[len(default) :].split("/")[1::2])


def plain(value: object) -> object:
    """What JSON has no type for, as something that it has; names are spelled as in Azure's JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        from pipeline.gallery.documents import camel

        return {camel(item.name): getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
