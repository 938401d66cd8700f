"""Whether a declared chain is the chain that its layers' headers mean.

A header is never followed; it only has to agree with what was declared: the file below by its name,
by its identifier where the format has one, and by its format where the header tells it.
"""

import ntpath
import posixpath
from collections.abc import Sequence
from pathlib import Path

from adapters.formats import Findings
from adapters.formats.window import quoted
from pipeline.ports import ImageFormat


def problems(
    child: Findings, path: Path, below: Findings, found: Sequence[tuple[int, int]], depth: int
) -> list[str]:
    """What is wrong with `path` being declared below the layer `child`. `found` has device and
    inode of every layer, `depth` is the child's."""
    name = quoted(str(path).encode())
    parent = child.parent
    if parent is None and child.references:
        return ["its header does not name its backing file"]
    if parent is None:
        return [f"it has no backing file, but {name} was declared below it"]
    reasons = []
    if found[depth + 1] in found[: depth + 1]:
        reasons.append(f"{name} is twice in the chain")
    names = {base_name(text, child.format) for text in parent.names}
    if path_name(path, child.format) not in names:
        meant = ", ".join(quoted(text.encode("utf-8", "replace")) for text in parent.names)
        reasons.append(f"its header means the file {meant or 'of no name'}, and not {name}")
    if parent.identifiers and below.identifier not in parent.identifiers:
        meant = " or ".join(parent.identifiers)
        reasons.append(
            f"its header means a file with the identifier {meant}, and {name} has "
            f"{below.identifier or 'none'}: another disk, or one that was written to since"
        )
    wanted = parent.format or child.format
    if parent.format is not None and below.format is not wanted:
        reasons.append(f"its header means a {wanted.value}, and {name} is {below.format.value}")
    if child.format in OWN_CHAINS and below.virtual_size != child.virtual_size:
        reasons.append(
            f"it has {child.virtual_size} bytes, and the disk below it, {name}, "
            f"{below.virtual_size}"
        )
    return reasons


def base_name(text: str, format: ImageFormat) -> str:
    """The last part of a path; formats from Windows have its separators, and mind no case."""
    if format is ImageFormat.QCOW2:
        # qemu's "json:{...}" and "protocol:..." (path_has_protocol) are no files
        return "" if ":" in text.split("/")[0] else posixpath.basename(text)
    return ntpath.basename(text).casefold()


def path_name(path: Path, format: ImageFormat) -> str:
    return path.name if format is ImageFormat.QCOW2 else path.name.casefold()


# qemu 7.2 reads a differencing VHD as if it were whole, and no differencing VHDX at all
OWN_CHAINS = {ImageFormat.VHD, ImageFormat.VHDX}


def read_by_us(format: ImageFormat, *, has_backing: bool) -> bool:
    """Whether qemu can't be asked about a layer."""
    return has_backing and format in OWN_CHAINS
