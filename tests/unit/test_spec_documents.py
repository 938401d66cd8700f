"""Build specs of many images: documents, variables and matrices; values are never read as YAML."""

import json
import textwrap
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from adapters.spec import (
    Broken,
    Declared,
    DefinitionSpec,
    GallerySpec,
    Given,
    Spec,
    SpecInvalid,
    given_texts,
    read_specs,
    read_variables,
    schema,
)
from adapters.spec.loading import MAX_ALL, MAX_CELLS, MAX_DOCUMENTS
from pipeline.errors import InvalidParameter, NotFound

HEAD = "apiVersion: galleria/v1\nkind: ImageVersion\n"
REST = "source: {osDisk: web.vhdx}\n"
GOOD = HEAD + "image: {gallery: corp, definition: web, version: 1.0.0}\n" + REST


def read(
    tmp_path: Path, text: str, texts: dict[str, str] | None = None, **values: object
) -> list[Declared | Broken]:
    path = tmp_path / "web.yaml"
    path.write_text(textwrap.dedent(text))
    return read_specs([path], Given(texts or {}, values))


def specs(found: list[Declared | Broken]) -> list[Spec]:
    documents = []
    for item in found:
        assert isinstance(item, Declared), item
        assert isinstance(item.document, Spec)
        documents.append(item.document)
    return documents


def broken(found: list[Declared | Broken]) -> str:
    (item,) = found
    assert isinstance(item, Broken)
    return str(item.error)


def test_documents_of_every_kind_in_one_file(tmp_path: Path) -> None:
    text = f"""\
        ---
        apiVersion: galleria/v1
        kind: Gallery
        name: corp
        softDeletePolicy: {{isSoftDeleteEnabled: true}}
        ---
        apiVersion: galleria/v1
        kind: ImageDefinition
        gallery: corp
        name: web
        osType: Linux
        identifier: {{publisher: Contoso, offer: web, sku: front}}
        recommended: {{vCPUs: {{min: 2}}}}
        ---
        # nothing
        ---
        {GOOD.replace(chr(10), chr(10) + " " * 8)}
    """
    gallery, definition, image = read(tmp_path, text)
    assert isinstance(gallery, Declared)
    assert isinstance(gallery.document, GallerySpec)
    assert isinstance(definition, Declared)
    assert isinstance(definition.document, DefinitionSpec)
    assert definition.document.model_dump(by_alias=True, exclude_unset=True)["recommended"] == {
        "vCPUs": {"min": 2}
    }
    assert isinstance(image, Declared)
    assert (gallery.line, definition.line, image.line) == (2, 7, 17)
    assert (gallery.name, image.name) == ("web.1", "web.3")


def test_one_document_that_is_wrong_leaves_the_others(tmp_path: Path) -> None:
    wrong = GOOD.replace("version: 1.0.0", "version: v1")
    one, two, three = read(tmp_path, f"{GOOD}---\n{wrong}---\n{GOOD}")
    assert isinstance(one, Declared)
    assert isinstance(three, Declared)
    assert isinstance(two, Broken)
    assert (two.name, two.line) == ("web.2", 6)
    assert str(two.error).startswith(f"{tmp_path}/web.yaml:8: image.version: The image version")


def test_a_directory_and_its_files_have_names_apart(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "sub/a.yaml", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(GOOD)
    found = read_specs([tmp_path, tmp_path / "sub"], Given())
    assert [item.name for item in found] == ["a", "b", "sub-a"]
    with pytest.raises(InvalidParameter, match=r"a\.yaml is given twice"):
        read_specs([tmp_path, tmp_path / "a.yaml"], Given())
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no build spec"):
        read_specs([tmp_path / "empty"], Given())


VARIABLES = (
    HEAD
    + """\
variables:
  release: {type: string, description: of Debian}
  replicas: 2
  force: {type: boolean, default: false}
  where: {type: list, default: [{name: eu}]}
  labels: {type: map, default: {}}
image:
  gallery: corp
  definition: web
  version: 1.0.0
  tags: ${var.labels}
source: {osDisk: "./${var.release}-${var.replicas}-${var.force}.vhdx"}
replicaCount: ${var.replicas}
force: ${var.force}
targetRegions: ${var.where}
"""
)


def test_variables_have_types_and_defaults(tmp_path: Path) -> None:
    (spec,) = specs(read(tmp_path, VARIABLES, {"release": "trixie"}))
    assert spec.source.os_disk == str(tmp_path / "trixie-2-false.vhdx")
    assert (spec.replica_count, spec.force) == (2, False)
    assert [region.name for region in spec.target_regions] == ["eu"]
    texts = {"replicas": "3", "force": "true", "where": '[{"name": "us"}]'}
    (spec,) = specs(read(tmp_path, VARIABLES, texts, release="bookworm", labels={"a": "b"}))
    assert (spec.replica_count, spec.force) == (3, True)
    assert [region.name for region in spec.target_regions] == ["us"]
    assert spec.image.tags == {"a": "b"}


@pytest.mark.parametrize(
    ("texts", "values", "problem"),
    [
        ({}, {}, "4: variables.release: the variable release has no value: give --var release="),
        (
            {"replicas": "two"},
            {},
            "5: variables.replicas: the variable replicas is of type integer",
        ),
        ({"force": "1"}, {}, "6: variables.force: the variable force is of type boolean"),
        ({"where": "{}"}, {}, "7: variables.where: the variable where is of type list in JSON"),
        ({"where": "[" * 9999}, {}, "7: variables.where: the variable where is of type list"),
        ({}, {"replicas": "2"}, "5: variables.replicas: the variable replicas is of type integer"),
        ({}, {"replicas": True}, "5: variables.replicas: the variable replicas is of type integer"),
    ],
)
def test_values_fit_the_type_of_their_variable(
    tmp_path: Path, texts: dict[str, str], values: dict[str, object], problem: str
) -> None:
    known: dict[str, object] = {} if problem.startswith("4") else {"release": "x"}
    found = read(tmp_path, VARIABLES, texts, **(known | values))
    assert broken(found).startswith(f"{tmp_path}/web.yaml:{problem}")


def test_a_variable_that_nobody_declares_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="'relaese'; did you mean release"):
        read(tmp_path, VARIABLES, {"relaese": "x", "release": "y"})
    with pytest.raises(InvalidParameter, match=r"--var: 'x' is not NAME=VALUE"):
        given_texts(["x"])


HOSTILE = [
    "a\nkind: Gallery",
    '"}, evil: {a: b',
    "'; rm -rf /",
    "${var.other}",
    "$${x}",
    "!!python/object/apply:os.system [id]",
    "*alias",
    "{a: 1}",
    "&a [*a]",
    "null",
    "1.0",
    "\u202e\x1b[31m",
    "%s %d {0}",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_values_are_values_and_never_yaml(tmp_path: Path, value: str) -> None:
    text = (
        HEAD
        + """\
variables: {x: a, other: secret}
image: {gallery: corp, definition: web, version: 1.0.0, tags: {one: "${var.x}", two: "<${var.x}>"}}
source: {osDisk: web.vhdx}
"""
    )
    (spec,) = specs(read(tmp_path, text, {"x": value}))
    assert spec.image.tags == {"one": value, "two": f"<{value}>"}
    matrix = text.replace("${var.x}", "${matrix.v}") + "matrix: {v: ['${var.x}']}\n"
    (spec,) = specs(read(tmp_path, matrix, {"x": value}))
    assert spec.image.tags == {"one": value, "two": f"<{value}>"}


def test_values_meet_the_rules_of_their_place(tmp_path: Path) -> None:
    text = GOOD.replace("definition: web", 'definition: "${var.x}"') + "variables: {x: a}\n"
    assert "3: image.definition: The entity name '../up' is invalid" in broken(
        read(tmp_path, text, {"x": "../up"})
    )


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("${var.nothing}", "there is no var.nothing"),
        ("${matrix.role}", "there is no matrix.role"),
        ("${env.HOME}", "is no reference such as ${var.NAME}"),
        ("${var.list}-x", "${var.list} is no text: it can only stand alone"),
        ("${var.x", "is no reference such as"),
        ("${var.x.y}", "there is no var.x.y"),
        ("${var.__class__}", "there is no var.__class__"),
    ],
)
def test_references_that_lead_nowhere(tmp_path: Path, reference: str, problem: str) -> None:
    text = (
        HEAD
        + f"""\
variables: {{x: a, list: [1]}}
image:
  {{gallery: corp, definition: web, version: 1.0.0, tags: {{a: "{reference}"}}}}
source: {{osDisk: web.vhdx}}
"""
    )
    told = broken(read(tmp_path, text))
    assert told.startswith(f"{tmp_path}/web.yaml:5: ")
    assert problem in told


MATRIX = (
    HEAD
    + """\
matrix:
  guest: [{name: debian, disk: d.vhdx, gen: V2}, {name: rocky, disk: r.vhdx, gen: V1}]
  profile: [sysprep, minimal]
  exclude: [{guest: {name: rocky, disk: r.vhdx, gen: V1}, profile: minimal}]
image: {gallery: corp, definition: "${matrix.guest.name}-${matrix.profile}", version: next-patch}
source: {osDisk: "${matrix.guest.disk}"}
generalize: {profile: "${matrix.profile}"}
"""
)


def test_a_matrix_stands_for_its_combinations(tmp_path: Path) -> None:
    found = read(tmp_path, MATRIX)
    assert [item.name for item in found] == [
        "web-debian-sysprep",
        "web-debian-minimal",
        "web-rocky-sysprep",
    ]
    assert [(spec.image.definition, spec.source.os_disk) for spec in specs(found)] == [
        ("debian-sysprep", f"{tmp_path}/d.vhdx"),
        ("debian-minimal", f"{tmp_path}/d.vhdx"),
        ("rocky-sysprep", f"{tmp_path}/r.vhdx"),
    ]
    named = [item.name for item in read(tmp_path, MATRIX + "name: ${matrix.guest.name}.x\n")]
    assert named == ["debian.x", "debian.x", "rocky.x"]


def test_builds_have_names_of_their_own(tmp_path: Path) -> None:
    one, two, _ = read(tmp_path, MATRIX + "name: ${matrix.guest.name}\n")
    assert isinstance(one, Declared)
    assert isinstance(two, Broken)
    assert "has the name 'debian', too" in str(two.error)


def test_a_mistake_of_one_combination_is_its_own(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        MATRIX.replace("[sysprep, minimal]", "[sysprep, tidy]").replace(
            "profile: minimal}]", "profile: tidy}]"
        ),
    )
    assert [type(item) for item in found] == [Declared, Broken, Declared]
    assert isinstance(found[1], Broken)
    assert "9: generalize.profile: there is no profile 'tidy'" in str(found[1].error)
    everywhere = read(tmp_path, MATRIX + "color: red\n")
    assert broken(everywhere).startswith(f"{tmp_path}/web.yaml:10: color: is not a key")


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        ("{}", "matrix: has no values"),
        ("{exclude: [{a: 1}]}", "matrix: has no values"),
        ("{a: []}", "matrix.a: Tuple should have at least 1 item"),
        ("{a: x}", "matrix.a: Input should be a valid array"),
        ("{a: [1], exclude: [{b: 1}]}", "exclude: {'b': 1} is no value by the name of an axis"),
        ("{a: [1], exclude: [{a: 1}]}", "exclude: leaves no combination"),
        ("{a: ['${matrix.a}']}", "there is no matrix.a"),
        ("{'a b': [1]}", "matrix.a b: String should match pattern"),
        (
            f"{{a: {list(range(17))}, b: {list(range(17))}}}",
            f"289 combinations, more than {MAX_CELLS}",
        ),
        (f"{{a: {list(range(101))}}}", "at most 100 items"),
    ],
)
def test_matrices_that_are_none(tmp_path: Path, matrix: str, problem: str) -> None:
    told = broken(read(tmp_path, GOOD + f"matrix: {matrix}\n"))
    assert problem in told.replace("[key]", "").replace(".: ", ": "), told


def test_too_much_is_refused(tmp_path: Path) -> None:
    many = "---\n".join(["a: 1\n"] * (MAX_DOCUMENTS + 1))
    assert f"more than {MAX_DOCUMENTS} documents" in broken(read(tmp_path, many))
    wide = GOOD + "matrix: {a: [" + ", ".join(map(str, range(16))) + "], b: ["
    wide += ", ".join(map(str, range(16))) + "]}\n"
    four = "---\n".join([wide] * 4)
    with pytest.raises(InvalidParameter, match=f"more than {MAX_ALL} documents in all"):
        read(tmp_path, four)


@pytest.mark.timeout(20)
def test_values_do_not_expand_without_end(tmp_path: Path) -> None:
    listed = GOOD + "variables: {x: {type: list}}\ntargetRegions:\n" + "- ${var.x}\n" * 4000
    told = broken(read(tmp_path, listed, {"x": json.dumps([0] * 4000)}))
    assert "the values of variables are too much" in told
    text = "${var.x}" * 4000
    long = GOOD + f"variables: {{x: a}}\nname: '{text}'\n"
    assert "longer than" in broken(read(tmp_path, long, {"x": "y" * 100_000}))
    deep = GOOD + "variables: {x: {type: list}}\ntargetRegions: ${var.x}\n"
    told = broken(read(tmp_path, deep, {"x": "[" * 50 + "]" * 50}))
    assert "too much, or deep" in told


def test_files_of_variables(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.json"
    one.write_text("release: bookworm\nreplicas: 2\n")
    two.write_text('{"replicas": 3, "where": [{"name": "us"}]}')
    assert read_variables([one, two]) == {
        "release": "bookworm",
        "replicas": 3,
        "where": [{"name": "us"}],
    }
    one.write_text("- release\n")
    with pytest.raises(SpecInvalid, match="expected a mapping of variables"):
        read_variables([one])
    one.write_text("a b: 1\n")
    with pytest.raises(InvalidParameter, match="'a b' is no name of a variable"):
        read_variables([one])
    with pytest.raises(NotFound, match="no such file of variables"):
        read_variables([tmp_path / "nothing"])


def test_a_variable_is_declared_once_for_all_documents_of_its_file(tmp_path: Path) -> None:
    first = GOOD + "variables: {n: 1.0.1}\n"
    second = GOOD.replace("version: 1.0.0", 'version: "${var.n}"')
    one, two = specs(read(tmp_path, f"{second}---\n{first}", {"n": "2.0.0"}))
    assert (one.image.version, two.image.version) == ("2.0.0", "1.0.0")
    told = broken(read(tmp_path, f"{first}---\n{first}"))
    assert told.startswith(f"{tmp_path}/web.yaml:11: variables.n: declared twice")


def test_the_schema_takes_references(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())

    def wrong(text: str) -> list[Any]:
        return list(validator.iter_errors(YAML(typ="safe").load(text)))

    assert wrong(VARIABLES) == []
    assert wrong(MATRIX) == []
    assert wrong(VARIABLES.replace("replicaCount: ${var.replicas}", "replicaCount: many")) != []
    assert wrong(MATRIX.replace("next-patch", "next")) != []
