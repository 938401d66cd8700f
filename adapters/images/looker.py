"""The first reader of an image file, in the sandbox (`adapters.process.parser`).

Looks at the headers and tables of an open file with galleria's own parsers and with oslo.utils'.
"""

from typing import Any

from adapters.formats import Window
from adapters.images import headers
from pipeline.errors import UnsafeImage


def answer(descriptor: str, limit: str) -> dict[str, Any]:
    """What is in the open file `descriptor`; `limit` is the largest virtual size."""
    fd = int(descriptor)
    format, doubts = headers.detect_format(Window(fd))
    findings = headers.inspect_as(fd, format, headers.Policy(virtual_size=int(limit)))
    answer: dict[str, Any] = {"format": format.value, "doubts": doubts}
    if not findings.refusals and not doubts:
        try:
            has_backing = bool(findings.references)
            answer["size"] = headers.oslo(fd, format, has_backing=has_backing)
        except UnsafeImage as error:
            answer["unsafe"] = error.message
    return {**answer, **headers.spelled(findings)}
