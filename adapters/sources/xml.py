"""XML of strangers, parsed without entities, DTDs or other files."""

from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pipeline.errors import DescriptionInvalid

LIMIT = 1 << 20  # bytes; a domain or an OVF with dozens of disks has some 50 KiB


def number(text: str) -> int | None:
    """A number of up to 19 decimal digits; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def parse(content: bytes, what: str) -> Element:
    """The root element. Raises DescriptionInvalid, naming `what`."""
    if len(content) > LIMIT:
        raise DescriptionInvalid(f"{what} is larger than {LIMIT} bytes")
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException:
        raise DescriptionInvalid(f"{what} has a DTD or entities, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:
        raise DescriptionInvalid(f"{what} is not XML: {str(error)[:200]!a}") from None
    return root
