"""A VM's own keys in the variables of its firmware, written by `virt-fw-vars` (virt-firmware)."""

import base64
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from adapters.process import command
from pipeline.errors import EnvironmentMissing
from pipeline.model import SignatureType, UefiKey, UefiKeySignatures

TOOL = "virt-fw-vars"
# who signatures in a variable belong to, as the tool wants it of each; firmware does not ask
OWNER = str(uuid.uuid5(uuid.NAMESPACE_DNS, "galleria"))


def enroll(signatures: UefiKeySignatures, nvram: Path) -> None:
    """Add them to the variables in a file. Raises EnvironmentMissing without the tool."""
    if signatures == UefiKeySignatures():
        return
    tool = shutil.which(TOOL, path=f"{Path(sys.executable).parent}:{command.PATH}")
    if tool is None:
        raise EnvironmentMissing(
            f"the program {TOOL} is not installed: it adds the version's additionalSignatures",
            hint="install the package python3-virt-firmware; where the distribution has none, "
            "virt-firmware with pip beside galleria",
        )
    with tempfile.TemporaryDirectory() as directory:
        command.run([tool, "--inplace", str(nvram), *_options(signatures, Path(directory))])


def _options(signatures: UefiKeySignatures, directory: Path) -> Iterator[str]:
    if signatures.pk is not None:
        yield from _key("--set-pk", "", signatures.pk, directory)
    for name, keys in (("kek", signatures.kek), ("db", signatures.db), ("dbx", signatures.dbx)):
        for key in keys:
            yield from _key(f"--add-{name}-cert", f"--add-{name}-hash", key, directory)


def _key(certificate: str, digest: str, key: UefiKey, directory: Path) -> Iterator[str]:
    for value in key.value:
        content = base64.b64decode(value)
        if key.type is SignatureType.SHA256:
            yield from (digest, OWNER, content.hex())
        else:
            path = directory / f"{len(list(directory.iterdir()))}.der"
            path.write_bytes(content)
            yield from (certificate, OWNER, str(path))
