"""The texts and numbers of build specs: what the pipeline's own rules accept."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.errors import GalleriaError
from pipeline.gallery.documents import parse_date
from pipeline.guest.operations import Operation
from pipeline.guest.profiles import OPERATIONS, PROFILES, Profile, select
from pipeline.model.names import DefinitionName, GalleryName, parse_gallery, parse_number
from pipeline.model.spelling import check_region

NEXT_PATCH = "next-patch"


def by(check: Callable[[str], object]) -> AfterValidator:
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


GalleryText = Annotated[str, by(parse_gallery)]
DefinitionText = Annotated[str, by(_check_definition)]
VersionText = Annotated[
    str,
    by(_check_version),
    Field(json_schema_extra={"pattern": rf"^(\d+\.\d+\.\d+|{NEXT_PATCH})$"}),
]
RegionText = Annotated[str, by(check_region)]
DateText = Annotated[str, by(lambda text: parse_date(text, "endOfLifeDate"))]
ProfileText = Annotated[str, by(select), _one_of(PROFILES)]
OperationText = Annotated[str, by(lambda name: select(only=[name])), _one_of(OPERATIONS)]
ChecksumText = Annotated[str, Field(pattern=r"^sha256:[0-9a-fA-F]{64}$")]
PathText = Annotated[str, Field(min_length=1)]
GuestPathText = Annotated[str, by(lambda path: select(remove_paths=[path]))]
DiskText = Annotated[str, Field(pattern=r"^(os|[0-9]{1,2})$")]
Count = Annotated[int, Field(ge=1, le=100)]
