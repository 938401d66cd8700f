"""What the shell completes beside commands and options: files, directories and the catalog's names.

    eval "$(_GALLERIA_COMPLETE=bash_source galleria)"         (zsh_source and fish_source, too)

What an option or an argument takes is known by the word that its help has for it.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from adapters.cli.context import Settings
from pipeline.errors import GalleriaError

if TYPE_CHECKING:
    from adapters.app import Session

VERSIONS = 50  # the newest of a definition


class _OnDisk(click.types.StringParamType):
    """A file or a directory (`kind`: "file", "dir"): the shell itself knows those."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self._kind)]


class _InCatalog(click.types.StringParamType):
    """The name of a gallery (`depth` 1), a definition (2) or a version (3). There are none where
    the catalog can't be opened: a prompt is no place to say why."""

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        settings = ctx.find_object(Settings) or Settings()
        with (
            contextlib.suppress(GalleriaError, OSError),
            contextlib.redirect_stderr(io.StringIO()),
            settings.session() as session,
        ):
            names = _names(session, settings.subscription, self._depth, incomplete)
            return [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return []


def type_of(metavar: str | None) -> _OnDisk | _InCatalog | None:
    """What completes a parameter that its help calls so; None when nothing does."""
    word = (metavar or "").removeprefix("[")
    if word.startswith("GALLERY"):
        return _InCatalog(word.count("/") + 1)
    if re.match(r"(\w+\|)*(FILE|SOCKET)\b", word):
        return _OnDisk("file")
    return _OnDisk("dir") if word.startswith("DIR") else None


def _names(session: "Session", subscription: str, depth: int, incomplete: str) -> Iterator[str]:
    for gallery in session.gallery.list_galleries(subscription):
        if depth == 1:
            yield str(gallery.name)
        elif _leads_to(incomplete, str(gallery.name)):
            for definition in session.gallery.list_definitions(gallery.name):
                yield str(definition.name)
                if depth == 3 and _leads_to(incomplete, str(definition.name)):
                    found = session.gallery.list_versions(definition.name, limit=VERSIONS)
                    yield from (str(version.name) for version in found)


def _leads_to(incomplete: str, name: str) -> bool:
    """Whether what is typed may become a name below this one."""
    return f"{name}/".startswith(incomplete) or incomplete.startswith(f"{name}/")
