"""What a person who mistypes is told: the plain sentence, the name that was meant, what to do."""

from collections.abc import Callable, Iterator

import pytest

from tests.home import DEFINE, Session


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.begun(tmp_path_factory.mktemp("words")) as made:
        made.run("init", "--region", "eu=eu", "--region", "UK South=uk")
        made.run("gallery", "create", "corp")
        made.run(*DEFINE)
        yield made


IDENTIFIER = ("--os-type", "Linux", "--publisher", "C", "--offer", "w", "--sku", "s")


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("galery list", 2, "there is no command 'galery'; did you mean gallery?"),
        ("gallery lst", 2, "No such command 'lst'. Did you mean 'list'?"),
        ("show corp --jsn", 2, "--json"),
        ("show corp", 2, "'corp' is a gallery; a version looks like corp/web/1.0.0"),
        ("list corp/web/1.0.0", 2, "is an image version; an image definition looks like corp/web"),
        ("gallery show crop", 4, "there is no gallery crop; did you mean corp? (ResourceNotFound)"),
        ("show corp/wbe", 4, "there is no image definition corp/wbe; did you mean corp/web?"),
        ("show corp/wbe", 4, "galleria definition create corp/wbe ... makes it"),
        ("list crop/web", 4, "there is no gallery crop, so no crop/web; did you mean corp?"),
        ("show corp/web/1.0.0", 4, "corp/web has no versions yet"),
        ("show corp/web", 4, "corp/web has no usable version"),
        ("show corp/web --region eus", 2, "there is no region 'eus'; did you mean eu?"),
        ("show corp/web --region us", 2, "hint: regions in the configuration: UK South, eu"),
        ("publish corp/web/v1 --os-disk x.raw", 2, "'v1' is not a version number such as 1.0.0"),
        ("publish corp/web/1.0.0 --os-disk x.raw", 4, "no such file: x.raw"),
        ("publish corp/web/1.0.0", 2, "a source is missing: give --os-disk"),
        ("hash x.raw", 4, "no such file: x.raw"),
        ("disk show d1", 4, "there is no disk d1 (ResourceNotFound)"),
        ("operations logz", 4, "there is no operation 'logz'; did you mean logs?"),
        ("gallery create a-b", 2, "no dash, as in Azure"),
    ],
)
def test_a_mistake_is_told_in_plain_words(home: Session, line: str, status: int, told: str) -> None:
    assert told in home.run(*line.split(), status=status).stderr


def test_suggestions_name_nothing_that_one_may_not_see(home: Session) -> None:
    home.run("principal", "create", "eve")
    said = home.run("--as", "eve", "show", "corp/wbe", status=4).stderr
    assert "corp/web" not in said


def test_missing_versions_name_the_newest(home: Session, require: Callable[..., None]) -> None:
    require("qemu-img", "bwrap")
    (home.path / "d.raw").write_bytes(bytes(1 << 20))
    kind = ("--os-state=Specialized", "--hyper-v-generation=V1")
    home.run("definition", "create", "corp/pet", *kind, *IDENTIFIER)
    for number in ("1.0.0", "1.0.1"):
        home.run("publish", f"corp/pet/{number}", "--os-disk", "d.raw", "--no-generalize")
    said = home.run("show", "corp/pet/1.1.0", status=4).stderr
    assert "the newest versions are 1.0.1, 1.0.0; galleria list corp/pet shows all" in said
