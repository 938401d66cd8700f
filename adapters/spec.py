"""Build specs: a YAML file that says what a version is made from, as `galleria build` takes it.

```yaml
apiVersion: galleria/v1
kind: ImageVersion
image: {gallery: corp, definition: web, version: next-patch}
source:
  osDisk: ./web.vhdx                  # relative to this file; FILE@NAME picks a qcow2 snapshot
  dataDisks: [{lun: 0, path: ./web-data.vhd}]
generalize: {skip: [logs]}            # or false; left out: as the definition's OS state says
targetRegions: [{name: eu, replicas: 2}, {name: us}]
```

`spec.schema.json` is generated from these models, for editors and CI; a test fails on difference.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import GalleriaError, InvalidParameter, NotFound
from pipeline.gallery.documents import parse_date
from pipeline.gallery.names import (
    DefinitionName,
    GalleryName,
    check_region,
    parse_gallery,
    parse_number,
)
from pipeline.guest.operations import Operation
from pipeline.guest.profiles import DEFAULT, OPERATIONS, PROFILES, Profile, select

NEXT_PATCH = "next-patch"
MAX_BYTES = 1 << 20
MAX_NODES = 10_000  # aliases can make a small file expand without end
SCHEMA_FILE = Path(__file__).with_name("spec.schema.json")


class SpecInvalid(InvalidParameter):
    """A build spec is not what the schema allows; the message has a line per mistake."""

    code = "SpecInvalid"


def _by(check: Callable[[str], object]) -> AfterValidator:
    """A text that one of the pipeline's own rules accepts."""

    def validate(text: str) -> str:
        try:
            check(text)
        except GalleriaError as error:
            raise ValueError(error.message) from None
        return text

    return AfterValidator(validate)


def _one_of(items: Sequence[Profile | Operation]) -> Any:
    """For the schema alone: editors complete these names."""
    return Field(json_schema_extra={"enum": [item.name for item in items]})


def _check_version(text: str) -> None:
    if text != NEXT_PATCH:
        parse_number(text)


def _check_definition(text: str) -> None:
    DefinitionName(GalleryName("any"), text)


GalleryText = Annotated[str, _by(parse_gallery)]
DefinitionText = Annotated[str, _by(_check_definition)]
VersionText = Annotated[
    str,
    _by(_check_version),
    Field(json_schema_extra={"pattern": rf"^(\d+\.\d+\.\d+|{NEXT_PATCH})$"}),
]
RegionText = Annotated[str, _by(check_region)]
DateText = Annotated[str, _by(lambda text: parse_date(text, "endOfLifeDate"))]
ProfileText = Annotated[str, _by(select), _one_of(PROFILES)]
OperationText = Annotated[str, _by(lambda name: select(only=[name])), _one_of(OPERATIONS)]
ChecksumText = Annotated[str, Field(pattern=r"^sha256:[0-9a-fA-F]{64}$")]
PathText = Annotated[str, Field(min_length=1)]
GuestPathText = Annotated[str, _by(lambda path: select(remove_paths=[path]))]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class Image(_Model):
    """Which version is made, and its properties."""

    gallery: GalleryText
    definition: DefinitionText
    version: VersionText = Field(description=f"Major.Minor.Patch, or {NEXT_PATCH}.")
    exclude_from_latest: bool = False
    end_of_life_date: DateText | None = Field(None, description="ISO 8601, in the future.")
    tags: Mapping[str, str] = Field(default_factory=dict)


class DataDisk(_Model):
    """A data disk by its logical unit number."""

    lun: int = Field(ge=0, le=63)
    path: PathText | None = None
    backing: tuple[PathText, ...] = Field((), description="Files below it, the bottom last.")
    vhd_uri: PathText | None = Field(None, description="http(s), instead of path.")
    checksum: ChecksumText | None = Field(None, description="sha256:HEX, with vhdUri.")
    snapshot: str | None = Field(None, description="A snapshot or disk, instead of path.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "DataDisk":
        if sum(item is not None for item in (self.path, self.vhd_uri, self.snapshot)) != 1:
            raise ValueError("a data disk has a path, a vhdUri or a snapshot")
        if (self.vhd_uri is None) != (self.checksum is None):
            raise ValueError("vhdUri and checksum go together")
        return self


class SourceDisks(_Model):
    """Image files, relative to the spec (FILE@NAME picks a qcow2 internal snapshot), or URLs; or
    one whole machine."""

    os_disk: PathText | None = None
    os_disk_backing: tuple[PathText, ...] = Field((), description="Files below it, bottom last.")
    os_vhd_uri: PathText | None = Field(None, description="http(s), instead of osDisk.")
    checksum: ChecksumText | None = Field(None, description="sha256:HEX, with osVhdUri.")
    os_snapshot: str | None = Field(None, description="A snapshot or disk, instead of osDisk.")
    data_disks: tuple[DataDisk, ...] = ()
    vm: PathText | None = Field(None, description="A libvirt domain's XML, or its name.")
    box: PathText | None = Field(None, description="A Vagrant box.")
    ova: PathText | None = Field(None, description="An OVA.")
    managed_image: str | None = Field(None, description="A managed image.")
    image_version: str | None = Field(None, description="A version: gallery/definition/version.")

    @model_validator(mode="after")
    def _one_of_all(self) -> "SourceDisks":
        kept = (self.managed_image, self.image_version)
        whole = [item for item in (self.vm, self.box, self.ova, *kept) if item is not None]
        disks = (self.os_disk, self.os_vhd_uri, self.os_snapshot)
        single = [item for item in disks if item is not None]
        if len(whole) + len(single) != 1 or (whole and self.data_disks):
            raise ValueError(
                "give one of osDisk, osVhdUri, osSnapshot (these with dataDisks), vm, box, ova, "
                "managedImage and imageVersion"
            )
        if self.os_disk_backing and self.os_disk is None:
            raise ValueError("osDiskBacking goes with osDisk")
        if (self.os_vhd_uri is None) != (self.checksum is None):
            raise ValueError("osVhdUri and checksum go together")
        return self


class Generalize(_Model):
    """How the guest is generalized. Operations: `galleria operations`."""

    profile: ProfileText = DEFAULT
    operations: tuple[OperationText, ...] = Field((), description="Only these, not the profile's.")
    enable: tuple[OperationText, ...] = Field((), description="These as well.")
    skip: tuple[OperationText, ...] = Field((), description="Not these.")
    remove_users: tuple[str, ...] = Field((), description="Remove these accounts.")
    keep_users: tuple[str, ...] = Field((), description="Keep these accounts.")
    remove_paths: tuple[GuestPathText, ...] = Field(
        (), description="Remove what these absolute paths or patterns name in the guest."
    )
    truncate_paths: tuple[GuestPathText, ...] = Field(
        (), description="Empty the files that these name."
    )
    scripts: tuple[PathText, ...] = Field(
        (),
        description="Shell scripts (relative to the spec) to run as root inside the guest, in the "
        "appliance, without a network. Danger: they and the guest's programs can spoil the image, "
        "and make it differ from run to run.",
    )


class SpecRegion(_Model):
    """A region that the version is to be in."""

    name: RegionText
    replicas: int | None = Field(None, ge=1, le=100, description="Default: replicaCount.")
    exclude_from_latest: bool = False


def _generalize_tag(value: object) -> str:
    return "flag" if isinstance(value, bool) else "details"


class Spec(_Model):
    """One image version, built by `galleria build`."""

    api_version: Literal["galleria/v1"]
    kind: Literal["ImageVersion"]
    image: Image
    source: SourceDisks
    generalize: (
        Annotated[
            Annotated[bool, Tag("flag")] | Annotated[Generalize, Tag("details")],
            Discriminator(_generalize_tag),
        ]
        | None
    ) = Field(None, description="Left out: when the definition's OS state is Generalized.")
    target_regions: tuple[SpecRegion, ...] = Field(
        (), description="Left out: the gallery's region alone."
    )
    replica_count: int | None = Field(None, ge=1, le=100)
    wait: Literal["first", "all"] = "all"


def load_spec(path: Path) -> Spec:
    """Read and check one spec; its disk paths come back joined to the spec's directory.

    Raises NotFound, or SpecInvalid with `file:line: key: what is wrong` for every mistake.
    """
    document = _read(path)
    budget = _Budget(path)
    try:
        spec = Spec.model_validate_json(json.dumps(budget.plain(document, 0)))
    except ValidationError as error:
        lines = [_describe(path, document, details) for details in error.errors()]
        raise SpecInvalid(
            "\n".join(lines), hint="galleria spec schema prints what a spec may hold"
        ) from None
    return _resolve(spec, path.parent)


def schema() -> dict[str, Any]:
    """The JSON schema of a spec (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Spec.model_json_schema(by_alias=True),
    }


def _resolve(spec: Spec, directory: Path) -> Spec:
    source = spec.source
    files = {
        name: str(directory / value)
        for name in ("os_disk", "box", "ova")
        if (value := getattr(source, name)) is not None
    }
    if source.vm is not None and source.vm.endswith(".xml"):
        files["vm"] = str(directory / source.vm)
    below = _joined(directory, source.os_disk_backing)
    disks = tuple(_resolve_disk(disk, directory) for disk in source.data_disks)
    resolved = source.model_copy(update={**files, "os_disk_backing": below, "data_disks": disks})
    wanted = spec.generalize
    if isinstance(wanted, Generalize):
        wanted = wanted.model_copy(update={"scripts": _joined(directory, wanted.scripts)})
    return spec.model_copy(update={"source": resolved, "generalize": wanted})


def _resolve_disk(disk: DataDisk, directory: Path) -> DataDisk:
    path = None if disk.path is None else str(directory / disk.path)
    return disk.model_copy(update={"path": path, "backing": _joined(directory, disk.backing)})


def _joined(directory: Path, files: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(directory / file) for file in files)


def _read(path: Path) -> CommentedMap:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no build spec {path}") from None
    if len(content) > MAX_BYTES:
        raise SpecInvalid(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        document = YAML(typ="rt").load(content)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecInvalid(f"{path}:{line}: {error.problem or error.context}") from None
    except RecursionError:
        raise SpecInvalid(f"{path}:1: too deep") from None
    except (YAMLError, ValueError) as error:
        raise SpecInvalid(f"{path}:1: not YAML: {error}") from None
    if not isinstance(document, CommentedMap):
        raise SpecInvalid(f"{path}:1: expected a mapping that begins with apiVersion")
    return document


class _Budget:
    """Turns ruamel's tree, which knows lines, into JSON data, within bounds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MAX_NODES

    def plain(self, value: object, depth: int) -> object:
        self._left -= 1
        if self._left < 0 or depth > 20:
            raise SpecInvalid(f"{self._path}: too deep, or its aliases expand to too much")
        if isinstance(value, CommentedMap):
            return {str(key): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, CommentedSeq):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, date):
            return value.isoformat()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise SpecInvalid(f"{self._path}: the tag of {value!r} is not known in a build spec")


def _describe(path: Path, document: CommentedMap, details: ErrorDetails) -> str:
    line, keys = _locate(document, details["loc"])
    message = details["msg"].removeprefix("Value error, ")
    value = details["input"]
    if details["type"] == "missing":
        message = "is required"
    elif details["type"] == "extra_forbidden":
        message = "is not a key that is known here"
    elif not isinstance(value, Mapping | list):
        quotes = ": write it in quotes" if details["type"] == "string_type" else ""
        message = f"{message}, got {value!r}{quotes}" if repr(value) not in message else message
    return f"{path}:{line}: {'.'.join(keys)}: {message}"


def _locate(document: CommentedMap, location: tuple[int | str, ...]) -> tuple[int, list[str]]:
    """The line of a place in the document, and its keys; pydantic's own union tags are left out."""
    node: object = document
    line = 1
    keys = []
    for index, key in enumerate(location):
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(key, int):
            line = node.lc.item(key)[0] + 1
        elif index < len(location) - 1 or not isinstance(node, CommentedMap):
            continue
        else:
            keys.append(str(key))
            break
        keys.append(str(key))
        node = node[key]
    return line, keys
