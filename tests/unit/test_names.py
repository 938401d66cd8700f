"""Names: what is one, what is not, and which are the same."""

import contextlib
import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.zones.layout import version_directory
from pipeline.errors import InvalidParameter
from pipeline.model.names import (
    MAX_NUMBER,
    DefinitionName,
    GalleryName,
    VersionName,
    VersionNumber,
    parse_definition,
    parse_gallery,
    parse_number,
    parse_reference,
    parse_version,
)
from pipeline.model.spelling import check_identifier, check_region, region_key
from tests import samples

ARM = (
    "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/images"
    "/providers/Microsoft.Compute/galleries/corp/images/web/versions/1.0.0"
)
ALNUM = string.ascii_letters + string.digits
part = st.integers(0, MAX_NUMBER)
numbers = st.builds(VersionNumber, part, part, part)


def named(middle: str) -> st.SearchStrategy[str]:
    edge = st.sampled_from(ALNUM)
    inner = st.text(ALNUM + middle, max_size=78)
    return edge | st.builds(lambda a, b, c: a + b + c, edge, inner, edge)


gallery_names = st.builds(GalleryName, named("_."))
version_names = st.builds(
    VersionName, st.builds(DefinitionName, gallery_names, named("_.-")), numbers
)


@given(version_names)
def test_both_spellings_of_a_version_read_back_as_the_same_name(name: VersionName) -> None:
    for text in (str(name), name.arm_id):
        parsed = parse_version(text)
        assert parsed == name
        assert parsed.arm_id == name.arm_id


@given(version_names)
@example(parse_version(f"{'g' * 80}/{'d' * 80}/{MAX_NUMBER}.{MAX_NUMBER}.{MAX_NUMBER}"))
@example(parse_version(f"{'g' * 80}/{'d' * 80}/1.0.0"))
def test_the_key_of_a_version_is_a_file_name_whatever_its_length(name: VersionName) -> None:
    uid = "0123456789abcdef" * 2
    key = samples.version(str(name), uid=uid).zone_key
    assert version_directory(Path("/zone"), key).name == key
    assert len(f"replicate-{key}.log") <= 255  # NAME_MAX: logs are named after it
    assert key.endswith(f"+{name.number}+{uid}")
    whole = f"{name.definition.gallery.name}+{name.definition.name}+{name.number}+{uid}".lower()
    assert key == whole or len(whole) > 201  # what is in zones is found by it


@given(version_names)
def test_case_does_not_tell_names_apart_and_is_kept(name: VersionName) -> None:
    for text in (name.arm_id.upper(), str(name).swapcase()):
        other = parse_version(text)
        assert other == name
        assert hash(other) == hash(name)
        assert other.definition.name in text


@given(numbers, numbers)
def test_numbers_are_ordered_as_integers(a: VersionNumber, b: VersionNumber) -> None:
    as_integers = [[int(p) for p in str(number).split(".")] for number in (a, b)]
    assert (a < b) == (as_integers[0] < as_integers[1])
    assert parse_number(str(a)) == a


@given(st.text(max_size=30))
def test_whatever_is_read_as_a_number_is_spelt_like_one(text: str) -> None:
    try:
        number = parse_number(text)
    except InvalidParameter:
        return
    assert str(number) == text


@given(st.text(max_size=40))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    for parse in (parse_gallery, parse_definition, parse_version, parse_reference, check_region):
        with contextlib.suppress(InvalidParameter):
            parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("1.0", "1.0.0.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1..0", "-1.0.0", "+1.0.0", "1.0.x"),
        *("", "2147483648.0.0", "1.0.0 ", " 1.0.0", "1.0.0\n", "1,0,0", "٣.0.0", "latest"),
    ],
)
def test_what_is_not_a_version_number(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"The image version name is invalid.*Major\(int\)"):
        parse_number(text)


def test_the_largest_version_number() -> None:
    text = "2147483647.2147483647.2147483647"
    assert str(parse_number(text)) == text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-gallery", "Gallery name is invalid.*'-' at position 3"),
        ("gällery", "Gallery name is invalid.*'ä' at position 2"),
        ("_gallery", "Gallery name is invalid.*'_' at position 1"),
        ("gallery.", r"'gallery\.' has these invalid trailing characters: \."),
        ("gallery_.", r"has these invalid trailing characters: _\."),
        ("g" * 81, "Gallery name is invalid.*81 characters"),
        ("gal lery", "' ' at position 4"),
        ("", "Gallery name is invalid"),
    ],
)
def test_what_is_not_a_gallery_name(name: str, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said) as caught:
        parse_gallery(name)
    assert caught.value.reason == "InvalidParameter"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("corp/-web", "The entity name '-web' is invalid according to its validation rule"),
        ("corp/we:b", "':' at position 3"),
        ("corp/web-", "invalid trailing characters: -"),
        ("corp/" + "w" * 81, "81 characters"),
        ("corp", "is a gallery; an image definition looks like corp/web"),
        ("corp/web/1.0.0", "is an image version; an image definition looks like corp/web"),
        ("corp/", "The entity name '' is invalid"),
    ],
)
def test_what_is_not_a_definition(text: str, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        parse_definition(text)


@pytest.mark.parametrize(
    ("part_of_id", "instead", "said"),
    [
        ("resourceGroups", "resourceGroup", "segment 3 is 'resourceGroup', expected"),
        ("Microsoft.Compute", "Microsoft.Storage", "segment 6 is 'Microsoft.Storage'"),
        ("/versions/", "/version/", "segment 11 is 'version', expected 'versions'"),
        ("11111111-2222", "1111-2222", "subscription identifier"),
        ("/images/web/versions/1.0.0", "/images", "it ends after segment 9"),
        ("/images/web/versions/1.0.0", "", "is a gallery; a version looks like corp/web/1.0.0"),
        ("images/providers", "im ages/providers", "Resource group name 'im ages' is invalid"),
    ],
)
def test_a_wrong_id_is_told_where(part_of_id: str, instead: str, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        parse_version(ARM.replace(part_of_id, instead, 1))


def test_a_name_outside_the_default_scope_is_spelt_in_full() -> None:
    name = parse_version(ARM)
    assert str(name) == ARM
    assert name.definition.gallery.resource_group == "images"
    assert name != parse_version("corp/web/1.0.0")


@pytest.mark.parametrize("text", ["corp/web", "corp/web/latest", "corp/web/LATEST"])
def test_references_to_the_latest(text: str) -> None:
    found = parse_reference(text)
    assert found.definition == parse_definition("corp/web")
    assert found.number is None


def test_a_reference_to_one_version() -> None:
    assert parse_reference(ARM).number == VersionNumber(1, 0, 0)


def test_regions_are_the_same_in_any_spelling() -> None:
    assert region_key("UK South") == region_key("uksouth") == region_key("Uk SOUTH") == "uksouth"
    assert check_region(" UK South ") == "UK South"


@pytest.mark.parametrize("text", ["", " ", "eu/us", "../eu", "e\x00u", "e" * 65, "eu=2"])
def test_what_is_not_a_region(text: str) -> None:
    with pytest.raises(InvalidParameter, match="region name"):
        check_region(text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("publisher", ""),
        ("publisher", "p" * 129),
        ("offer", "o" * 65),
        ("sku", "s" * 65),
        ("sku", "front."),
        ("offer", "a b"),
        ("offer", "a/b"),
    ],
)
def test_what_is_not_a_publisher_offer_or_sku(kind: str, value: str) -> None:
    core = f"Asset name galleryImage.properties.identifier.{kind} is not valid"
    with pytest.raises(InvalidParameter, match=core):
        check_identifier(kind, value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("publisher", "p" * 128), ("offer", "o" * 64), ("sku", ".a_b-"), ("sku", "9")],
)
def test_what_is_one(kind: str, value: str) -> None:
    check_identifier(kind, value)
