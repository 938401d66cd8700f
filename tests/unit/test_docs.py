"""The documentation agrees with the code: what is made from it, what it names, where it leads."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from adapters import cli
from adapters.cli.commands import COMMANDS
from adapters.cli.guide import TOPICS, Guide, guide_of
from adapters.cli.guide.man import page, pages
from adapters.config import PARSERS, load_config
from adapters.config.values import MEANINGS
from adapters.spec import Broken, Given, read_specs
from tests.docs.console import all_options, check, lines_of, matches, options_of, spans_of
from tests.docs.reference import BLOCKS, GUIDES, ROOT, renewed

PAGES = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "tests/*.md", "fixtures/*.md", "pipeline/**/*.md")
    for path in ROOT.glob(pattern)
) + sorted((ROOT / "adapters").rglob("*.md"))
README_LINES = 250


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_page = pytest.mark.parametrize("path", PAGES, ids=name)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_every_guide_is_listed() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} == set(TOPICS)
    readme = (ROOT / "README.md").read_text()
    assert [topic for topic in TOPICS if f"(adapters/cli/guide/{topic}.md)" not in readme] == []


def test_every_key_of_the_configuration_has_a_meaning() -> None:
    assert set(MEANINGS) == set(PARSERS)


@every_page
def test_what_is_made_from_the_code_is_as_the_code(path: Path) -> None:
    text = path.read_text()
    assert renewed(text) == text, f"{name(path)} differs: run scripts/docs"


def test_every_block_is_in_some_page() -> None:
    found = "".join(path.read_text() for path in PAGES)
    assert [block for block in BLOCKS if f"<!-- generated: {block} -->" not in found] == []


# --- what pages name -----------------------------------------------------------------------------


@every_page
def test_commands_of_pages_exist(path: Path) -> None:
    """Whether they run or not: no page names a command, an option or an argument that is not."""
    for line in lines_of(path):
        if (words := line.galleria) is not None:
            try:
                check(words, whole=True)
            except click.UsageError as error:
                pytest.fail(f"{line.where}: {line.command}: {error.format_message()}")
    for line in spans_of(path):
        words = re.split(r"[ ](?:\.\.\.|[|>]) ?", line.command)[0].split()[1:]
        try:
            check([word for word in words if word != "..."], whole=False)
        except click.BadOptionUsage:  # an option that is there, named without its value
            pass
        except click.UsageError as error:
            pytest.fail(f"{line.where}: `{line.command}`: {error.format_message()}")


@every_page
def test_options_that_pages_name_exist(path: Path) -> None:
    assert options_of(path) - all_options() == set()


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("publihs corp/web/1.0.0", False),
        ("publish corp/web/1.0.0 --os-dsik web.vhdx", False),
        ("gallery creat corp", False),
        ("publish", True),
        ("show a/b/1.0.0 c/d/1.0.0", False),
        ("definition create corp/web --os-type Linux", True),
    ],
)
def test_a_command_that_is_not_there_is_seen(command: str, whole: bool) -> None:
    with pytest.raises(click.UsageError):
        check(command.split(), whole=whole)


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a  b\n", "a b\n", True),
        ("a ... d\n", "a b\nc d\n", True),
        ("up by 1m...s\n", "up by 1m43s\n", True),
        ("a\n...\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_output_is_compared(expected: str, output: str, same: bool) -> None:
    assert matches(expected, output) is same


PATH = re.compile(r"(?:pipeline|adapters|tests|fixtures|scripts|\.github|\.ci)/[\w./*-]*[\w*/]")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


@every_page
def test_files_that_pages_name_are_there(path: Path) -> None:
    text = path.read_text()
    if path.name == "CHANGELOG.md":
        return
    missing = [
        found
        for span in re.findall(r"`([^`\n]+)`", text)
        for found in PATH.findall(span)
        if not (ROOT / found).exists() and not list(ROOT.glob(found))
    ]
    assert missing == []


IDENTIFIER = re.compile(r"`(_\w+|[A-Z][A-Za-z_]+|[a-z]+_\w+)`")
DEVELOPERS = [path for path in PAGES if "guide" not in path.parts and path.name != "CHANGELOG.md"]


@pytest.mark.parametrize("path", DEVELOPERS, ids=name)
def test_names_of_the_code_are_in_the_files_beside_them(path: Path) -> None:
    """A name that a sentence or a step has beside files is in one of these; else in some file."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for part in re.split(r"\n\n|\n(?=- |\d+\. |\| )", text):
        files = [file for found in PATH.findall(part) for file in python_files(found)]
        for found in IDENTIFIER.findall(part):
            word = re.compile(rf"\b{found}\b")
            places = files or [file for room in CODE for file in python_files(room)]
            assert any(word.search(file.read_text()) for file in places), f"{name(path)}: {found}"


CODE = ("pipeline", "adapters", "tests", "fixtures")


def python_files(place: str) -> list[Path]:
    """The modules that a path in a page means: a file, a directory with all below it, a pattern."""
    found = [ROOT / place] if (ROOT / place).exists() else list(ROOT.glob(place))
    return [file for path in found for file in ([path] if path.is_file() else path.rglob("*.py"))]


@every_page
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), f"{name(path)}: {target}"
        if anchor:
            assert anchor in set(anchors(page)), f"{name(path)}: {target}"


def anchors(path: Path) -> Iterator[str]:
    """Of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def blocks_of(kind: str) -> list[tuple[str, str]]:
    """The blocks of code of one kind in README and the guides, and the pages that they are in."""
    pages = [path for path in PAGES if path.name == "README.md" or path.parent == GUIDES]
    fence = re.compile(rf"^```{kind}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(name(path), block) for path in pages for block in fence.findall(path.read_text())]


def test_configurations_in_the_guides_are_read(tmp_path: Path) -> None:
    found = blocks_of("toml")
    assert len(found) >= 2
    for where, block in found:
        (tmp_path / "config.toml").write_text(block)
        assert load_config(tmp_path / "config.toml", env={}).regions, where


def test_build_specs_in_the_guides_are_read(tmp_path: Path) -> None:
    """A block may be a part of one: what every spec has is put before it."""
    found = blocks_of("yaml")
    assert len(found) >= 3
    (tmp_path / "reset.sh").write_text("true\n")
    for _, block in found:
        whole = "" if "apiVersion" in block else "apiVersion: galleria/v1\nkind: ImageVersion\n"
        if "\nimage:" not in f"\n{block}":
            whole += "image: {gallery: corp, definition: web, version: next-patch}\n"
            whole += "source: {osDisk: ./web.vhdx}\n"
        (tmp_path / "spec.yaml").write_text(whole + block)
        for item in read_specs([tmp_path / "spec.yaml"], Given()):
            assert not isinstance(item, Broken), item.error


# --- workflows -----------------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_workflows_call_the_same_scripts(path: Path) -> None:
    """Actions of others are pinned by their digest; what is run is a script of the repository."""
    jobs = YAML(typ="safe").load(path)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert [uses for step in steps if (uses := step.get("uses")) and not PINNED.search(uses)] == []
    scripts = [
        step["run"].split()[0]
        for step in steps
        if step.get("run", "apt-get").split()[0] not in ("apt-get", "git")
    ]
    assert scripts
    assert [script for script in scripts if not os.access(ROOT / script, os.X_OK)] == []


PINNED = re.compile(r"@[0-9a-f]{40}$")


# --- man pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
def test_man_pages_render_without_a_warning(
    topic: str, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("groff")
    for title, section, text in pages(guide_of(topic)):
        file = tmp_path / f"{title}.{section}"
        file.write_text(text, encoding="ascii")
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", str(file)], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), title
        assert f"{title} - " in plain(done.stdout)


def plain(text: str) -> str:
    """A terminal's text without what makes it bold."""
    return re.sub(".\b", "", text)


def test_a_man_page_says_what_the_guide_says(require: Callable[..., None], tmp_path: Path) -> None:
    require("groff")
    guide = Guide(
        "x",
        "# X\n\nAbout x.\n\n## Part\n\n"
        ".A line with `--opt \\n 'q'` and\n'more* ~ [other](sources.md).\n\n"
        "<!-- hidden -->\n- `--opt`: does it\n- a\n\n1. one\n\n"
        "| a | b | c |\n|---|---|---|\n| `k` | 1 | 2 \\| 3 |\n\n"
        "```console\n.$ galleria x -- 'y'\n```\n",
    )
    ((title, section, text),) = pages(guide)
    assert (title, section) == ("galleria-x", 7)
    file = tmp_path / "x.7"
    file.write_text(text, encoding="ascii")
    argv = ["groff", "-man", "-ww", "-Tascii", str(file)]
    shown = plain(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    for part in (
        *("galleria-x - About x.", "Part", ".A line with --opt \\n 'q' and", "'more* ~ other"),
        *("(galleria-sources(7))", "--opt", "does it", "b: 1; c: 2 | 3", ".$ galleria x -- 'y'"),
    ):
        assert part in shown, (part, shown)
    assert "hidden" not in shown


def test_man_pages_do_not_guess() -> None:
    with pytest.raises(ValueError, match="man pages know no blockquote"):
        page("x", 7, "# X\n\nAbout.\n\n> quoted\n")


def test_the_guides_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: str, status: int = 0) -> str:
        assert cli.run(args) == status
        return capsys.readouterr().out

    listed = json.loads(run("guide", "--json"))["guides"]
    assert [item["topic"] for item in listed] == list(TOPICS)
    for item in listed:
        assert len(item["summary"]) <= 120
        assert item["topic"] in run("guide")
    assert run("guide", "vagrant").startswith("# Vagrant\n")
    assert json.loads(run("guide", "vagrant", "--json"))["guide"]["title"] == "Vagrant"
    run("guide", "vagarnt", status=4)
    written = [Path(line) for line in run("guide", "--man", str(tmp_path)).splitlines()]
    assert {path.name for path in written} == {path.name for path in tmp_path.glob("man?/*")}
    names = {path.name for path in written}
    assert {f"galleria-{topic}.7" for topic in TOPICS if topic != "commands"} <= names
    assert {f"galleria-{name.replace(' ', '-')}.1" for name in COMMANDS} | {"galleria.1"} <= names


def test_guides_on_a_terminal() -> None:
    text = Guide("x", "# X\n\n<!-- a\nb -->\n[one](sources.md#a), [two](#b), \\<id>\n").text
    assert text == "# X\n\none (galleria guide sources), two, <id>"
