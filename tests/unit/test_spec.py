"""Build specs: what is accepted, and every mistake with its line."""

import json
import textwrap
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from adapters.cli.sources import spec_sources
from adapters.spec import SCHEMA_FILE, Spec, SpecInvalid, schema
from pipeline.errors import NotFound
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.sources import (
    AnySource,
    ManagedImageSource,
    SnapshotSource,
    StoredDiskSource,
    VersionSource,
)
from tests.specs import load_spec

GOOD = """\
apiVersion: galleria/v1
kind: ImageVersion
image: {gallery: corp, definition: web, version: 1.0.0}
source: {osDisk: web.vhdx}
"""


def _id(kind: str, name: str) -> str:
    return ResourceName(ResourceKind(kind), name).arm_id


def load(tmp_path: Path, text: str) -> Spec:
    path = tmp_path / "web.yaml"
    path.write_text(textwrap.dedent(text))
    return load_spec(path)


def test_the_least(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    assert (spec.image.gallery, spec.image.definition, spec.image.version) == (
        "corp",
        "web",
        "1.0.0",
    )
    assert spec.source.os_disk == str(tmp_path / "web.vhdx")
    assert spec.generalize is None
    assert spec.target_regions == ()
    assert spec.wait == "all"


FULL = """\
apiVersion: galleria/v1
kind: ImageVersion
image:
  gallery: corp
  definition: web
  version: next-patch
  excludeFromLatest: true
  endOfLifeDate: 2099-01-31
  tags: {team: web}
source:
  osDisk: ./sub/web.qcow2@before
  dataDisks:
    - {lun: 0, path: /abs/data.vhd}
    - lun: 3
      path: ../data.vmdk
generalize:
  profile: minimal
  operations: [machine-id, ssh-host-keys]
  skip: [logs]
targetRegions:
  - {name: eu, replicas: 2}
  - {name: UK South, excludeFromLatest: true}
replicaCount: 3
wait: first
"""


KEPT = """\
apiVersion: galleria/v1
kind: ImageVersion
image: {gallery: corp, definition: web, version: 1.0.0}
source:
  SOURCE
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("managedImage: golden", [ManagedImageSource(_id("images", "golden"))]),
        ("imageVersion: corp/base/latest", [VersionSource("corp/base/latest")]),
        (
            "{osSnapshot: s1, dataDisks: [{lun: 4, snapshot: " + _id("disks", "d1") + "}]}",
            [SnapshotSource(None, _id("snapshots", "s1")), StoredDiskSource(4, _id("disks", "d1"))],
        ),
    ],
)
def test_sources_that_the_catalog_knows(
    tmp_path: Path, text: str, expected: list[AnySource]
) -> None:
    spec = load(tmp_path, KEPT.replace("SOURCE", text))
    assert list(spec_sources(spec.source)) == expected


def test_everything(tmp_path: Path) -> None:
    spec = load(tmp_path, FULL)
    assert spec.image.end_of_life_date == "2099-01-31"
    assert spec.image.tags == {"team": "web"}
    assert spec.source.os_disk == str(tmp_path / "sub/web.qcow2@before")
    assert [(disk.lun, disk.path) for disk in spec.source.data_disks] == [
        (0, "/abs/data.vhd"),
        (3, str(tmp_path / "../data.vmdk")),
    ]
    assert not isinstance(spec.generalize, bool)
    assert spec.generalize is not None
    assert spec.generalize.operations == ("machine-id", "ssh-host-keys")
    assert [(region.name, region.replicas) for region in spec.target_regions] == [
        ("eu", 2),
        ("UK South", None),
    ]


@pytest.mark.parametrize("value", [True, False])
def test_generalize_may_be_a_flag(tmp_path: Path, value: bool) -> None:
    assert load(tmp_path, GOOD + f"generalize: {str(value).lower()}\n").generalize is value


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        ("kind: ImageVersion", "", ["1: kind: is required"]),
        (
            "kind: ImageVersion",
            "kind: VM",
            ["2: kind: Input should be 'ImageVersion', 'Gallery' or 'ImageDefinition', got 'VM'"],
        ),
        ("version: 1.0.0", "version: 1.0", ["3: image.version: Input should be a valid string"]),
        ("version: 1.0.0", "version: v1", ["3: image.version: The image version name is invalid"]),
        ("corp", "co-rp", ["3: image.gallery: Gallery name is invalid"]),
        ("web,", "-web,", ["3: image.definition: The entity name '-web' is invalid"]),
        (
            "source: {osDisk",
            "source: {osdisk",
            ["4: source.osdisk: is not a key"],
        ),
        ("source:", "color: red\nsource:", ["4: color: is not a key that is known here"]),
        ("source: {osDisk: web.vhdx}", "source: web.vhdx", ["4: source: Input should be"]),
        ("source: {osDisk: web.vhdx}", "", ["1: source: is required"]),
    ],
)
def test_mistakes_have_their_line(tmp_path: Path, old: str, new: str, problems: list[str]) -> None:
    with pytest.raises(SpecInvalid) as caught:
        load(tmp_path, GOOD.replace(old, new))
    lines = caught.value.message.splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(f"{tmp_path}/web.yaml:{problem}")
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("lun: 3", "lun: -1", "14: source.dataDisks.1.lun: Input should be greater"),
        ("lun: 3", "lun: '3'", "14: source.dataDisks.1.lun: Input should be a valid integer"),
        (
            "      path: ../data.vmdk\n",
            "",
            "14: source.dataDisks.1: a data disk has a path, a vhdUri or a snapshot",
        ),
        ("2099-01-31", "tomorrow", "8: image.endOfLifeDate: Could not convert string"),
        ("skip: [logs]", "skip: logs", "19: generalize.skip: Input should be a valid array"),
        ("skip: [logs]", "keep: [logs]", "19: generalize.keep: is not a key"),
        (
            "[logs]",
            "[lgos]",
            "19: generalize.skip.0: there is no operation 'lgos'; did you mean logs",
        ),
        ("profile: minimal", "profile: tidy", "17: generalize.profile: there is no profile 'tidy'"),
        ("replicas: 2", "replicas: 0", "21: targetRegions.0.replicas: Input should be greater"),
        ("UK South", "UK/South", "22: targetRegions.1.name: The region name"),
        (
            "wait: first",
            "wait: now",
            "24: wait: Input should be 'first', 'all' or 'none', got 'now'",
        ),
        ("{team: web}", "{team: 1}", "9: image.tags.team: Input should be a valid string, got 1"),
    ],
)
def test_deep_mistakes_have_their_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        load(tmp_path, FULL.replace(old, new))
    assert caught.value.message.startswith(f"{tmp_path}/web.yaml:{problem}")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", ":2: found duplicate key"),
        ("a: [1\nb: 2\n", ":2: expected ',' or ']'"),
        ("- a\n", ":1: expected a mapping"),
        ("", ":1: expected a mapping"),
        ("a: !!python/object/apply:os.system [id]\n", ""),
        ("a: 1\nb: !secret x\n", ":2: the tag '!secret' is not known"),
        ("a: 1\nb:\n- !!python/object {c: 1}\n", ":3: the tag 'tag:yaml.org,2002:python/object'"),
        ("a: 1\nb: !secret\n  c: 1\n", ":2: the tag '!secret' is not known"),
        ("a: " + "[" * 25 + "]" * 25, "too deep"),
        ("a: " + "[" * 20_000, "too deep"),
        ("a: \xff\x00\n", ""),
    ],
)
def test_what_is_not_a_document(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        load(tmp_path, text)
    assert problem in caught.value.message
    assert str(tmp_path / "web.yaml") in caught.value.message


def test_aliases_do_not_expand_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(SpecInvalid, match="expand to too much"):
        load(tmp_path, "\n".join(lines))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.yaml"):
        load_spec(tmp_path / "nowhere.yaml")


def test_the_published_schema_is_that_of_the_models() -> None:
    assert SCHEMA_FILE.read_text() == json.dumps(schema(), indent=2) + "\n", "run scripts/docs"


def test_the_schema_judges_as_galleria_does() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    jsonschema.Draft202012Validator.check_schema(schema())
    full = YAML(typ="safe").load(FULL.replace("2099-01-31", "'2099-01-31'"))
    assert list(validator.iter_errors(full)) == []
    for old, new in (
        ("next-patch", "1.0"),
        ("lun: 3", "lun: -1"),
        ("wait: first", "wait: later"),
        ("skip:", "keep:"),
        ("kind: ImageVersion", ""),
    ):
        broken = YAML(typ="safe").load(FULL.replace("2099-01-31", "'2099-01-31'").replace(old, new))
        assert list(validator.iter_errors(broken)) != [], new


def test_a_spec_that_would_take_long_to_read_is_refused(tmp_path: Path) -> None:
    """A MiB took the parser 24 s."""
    with pytest.raises(SpecInvalid, match="larger than"):
        load(tmp_path, GOOD + "# more\n" * (20 << 10))
