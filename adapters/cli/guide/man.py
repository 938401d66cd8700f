"""Man pages from Markdown: the guides become section 7, the command reference section 1.

Only what the guides use is known: headings, paragraphs, lists, tables, code, emphasis and links.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node

from adapters.cli.guide import Guide
from adapters.filesystem import modes

COMMANDS = "commands"  # the guide that is cut into one page a command
# what troff would read as something else; a bare - is a hyphen, which can't be pasted
_SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
_FONTS = {"code_inline": "B", "strong": "B", "em": "I"}


def write_pages(guides: Iterable[Guide], directory: Path) -> list[Path]:
    """Write guides as man pages below `directory`; returns the files."""
    written = []
    with modes.callers():
        for guide in guides:
            for name, section, text in pages(guide):
                path = directory / f"man{section}" / f"{name}.{section}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="ascii")
                written.append(path)
    return written


def pages(guide: Guide) -> Iterator[tuple[str, int, str]]:
    """The man pages of a guide: name, section and troff source."""
    if guide.topic != COMMANDS:
        name = f"galleria-{guide.topic}"
        yield name, 7, page(name, 7, guide.markdown)
        return
    overview, *commands = re.split(r"^## (?=galleria )", guide.markdown, flags=re.MULTILINE)
    yield "galleria", 1, page("galleria", 1, overview)
    for text in commands:
        name = text.partition("\n")[0].replace(" ", "-")
        yield name, 1, page(name, 1, f"# {text}")


def page(name: str, section: int, markdown: str) -> str:
    """One page. Its first paragraph is what `man -k` says of it."""
    _, first, *rest = Node(MarkdownIt().enable("table").parse(markdown)).children
    release = f"galleria {version('galleria')}"
    lines = [
        f'.TH "{name.upper()}" {section} "" "{release}" "galleria"',
        *(".nh", ".ad l"),  # nothing that is copied is broken with a hyphen
        ".SH NAME",
        f"{_escaped(name)} \\- {_inline(first)}",
        ".SH DESCRIPTION",
    ]
    for block in rest:
        lines += _block(block)
    return "\n".join(lines) + "\n"


def _block(node: Node) -> Iterator[str]:
    match node.type:
        case "heading":
            yield f".{'SH' if node.tag == 'h2' else 'SS'} {_inline(node)}"
        case "paragraph":
            yield from (".PP", _text(node))
        case "fence":
            yield from (".PP", ".RS 4", ".EX", _lines(node.content), ".EE", ".RE")
        case "bullet_list" | "ordered_list":
            for number, item in enumerate(node.children, 1):
                yield from _item(item, r"\(bu" if node.type == "bullet_list" else f"{number}.")
        case "table":
            yield from _table(node)
        case "html_block":  # a comment
            return
        case unknown:
            raise ValueError(f"man pages know no {unknown}: {node.content[:60]!r}")


def _item(node: Node, mark: str) -> Iterator[str]:
    """An item of a list. "`code`: text", or code alone, is what man pages call a tagged
    paragraph."""
    first, *rest = node.children
    tag, *text = first.children[0].children
    if tag.type == "code_inline" and (not text or text[0].content.startswith(": ")):
        told = "".join(map(_part, text)).removeprefix(": ")
        yield from (".TP", _part(tag), _protected(told) or r"\ ")
    else:
        yield from (f'.IP "{mark}" 3', _text(first))
    for block in rest:
        yield from (".RS 3", *_block(block), ".RE")


def _table(node: Node) -> Iterator[str]:
    """A table as tagged paragraphs: its cells wrap, however wide the terminal is."""
    head, body = node.children
    titles = [_inline(cell) for cell in head.children[0].children]
    for row in body.children:
        tag, *cells = map(_inline, row.children)
        named = len(cells) > 1
        told = [f"{t}: {c}" if named else c for t, c in zip(titles[1:], cells, strict=True) if c]
        yield from (".TP", tag or r"\ ", _protected("; ".join(told)) or r"\ ")


def _inline(node: Node) -> str:
    """On one line."""
    return " ".join(_text(node).split("\n")).removeprefix(r"\&")


def _text(node: Node) -> str:
    return _protected("".join(_part(part) for child in node.children for part in child.children))


def _part(node: Node) -> str:
    if node.type in _FONTS:
        inner = "".join(map(_part, node.children)) or _escaped(node.content)
        return rf"\f{_FONTS[node.type]}{inner}\fP"
    if node.type == "link":
        return _link("".join(map(_part, node.children)), str(node.attrs["href"]))
    return "\n" if node.type in ("softbreak", "hardbreak") else _escaped(node.content)


def _link(text: str, target: str) -> str:
    topic, is_guide, _ = target.partition(".md")
    if target.startswith("#"):
        return text
    if not is_guide:
        return f"{text} ({_escaped(target)})"
    return text if "/" in topic else rf"{text} (\fBgalleria\-{topic}\fP(7))"


def _lines(text: str) -> str:
    return "\n".join(_protected(_escaped(line)) for line in text.rstrip("\n").split("\n"))


def _protected(text: str) -> str:
    """Lines of which none is a request to troff."""
    return "\n".join(rf"\&{line}" if line[:1] in (".", "'") else line for line in text.split("\n"))


def _escaped(text: str) -> str:
    return "".join(
        _SPECIAL.get(char, char if char.isascii() else rf"\[u{ord(char):04X}]") for char in text
    )
