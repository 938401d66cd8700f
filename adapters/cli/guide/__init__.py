"""`galleria guide`: the guides for users, as text and as man pages."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.text import table
from pipeline.errors import NotFound

# In the order in which a newcomer needs them.
TOPICS = (
    *("sources", "linux", "windows", "gallery", "regions", "deploying", "sharing", "ci", "vagrant"),
    *("server", "operations", "performance", "configuration", "commands", "errors"),
)
_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_GUIDE_LINK = re.compile(r"\[([^\]]+)\]\((\w+)\.md(?:#[\w-]*)?\)")
_SECTION_LINK = re.compile(r"\[([^\]]+)\]\(#[\w-]+\)")


@dataclass(frozen=True, slots=True)
class Guide:
    """One guide, as Markdown."""

    topic: str
    markdown: str

    @property
    def title(self) -> str:
        return self.markdown.partition("\n")[0].removeprefix("# ")

    @property
    def summary(self) -> str:
        """Its first paragraph."""
        return " ".join(self.markdown.split("\n\n")[1].split())

    @property
    def text(self) -> str:
        """For a terminal: without comments and escapes, links in words."""
        text = _COMMENT.sub("", self.markdown)
        text = _GUIDE_LINK.sub(r"\1 (galleria guide \2)", text)
        text = _SECTION_LINK.sub(r"\1", text)
        text = re.sub(r"\\([*<|])", r"\1", text)
        return re.sub(r"\n{3,}", "\n\n", text).strip()


def guide_of(topic: str) -> Guide:
    """Read one guide. Raises NotFound for an unknown topic."""
    if topic not in TOPICS:
        raise NotFound(f"there is no guide {topic!r}", hint=f"guides: {', '.join(TOPICS)}")
    page = resources.files(__name__) / f"{topic}.md"
    return Guide(topic, page.read_text(encoding="utf-8"))


def guides() -> Iterator[Guide]:
    """Read all guides."""
    return map(guide_of, TOPICS)


@click.command(cls=Command)
@click.argument("topic", required=False, metavar="[TOPIC]")
@click.option(
    "--man",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the guides and commands as man pages to DIR/man1 and DIR/man7.",
)
@click.pass_obj
def guide(settings: Settings, *, topic: str | None, directory: Path | None) -> None:
    """List the guides, or show one.

    The pages are plain text (Markdown).
    """
    if directory is not None:
        from adapters.cli.guide.man import write_pages

        written = write_pages([guide_of(topic)] if topic else list(guides()), directory)
        settings.emit({"pages": written}, "\n".join(map(str, written)))
    elif topic is not None:
        shown = guide_of(topic)
        document = {"topic": shown.topic, "title": shown.title, "text": shown.text}
        settings.emit({"guide": document}, shown.text)
    else:
        listed = list(guides())
        rows = [(item.topic, item.summary) for item in listed]
        text = f"{table(('guide', 'about'), rows)}\n\ngalleria guide TOPIC shows one"
        documents = [
            {"topic": item.topic, "title": item.title, "summary": item.summary} for item in listed
        ]
        settings.emit({"guides": documents}, text)
