"""Copy-on-write children of what a zone holds: replicas, and disks that are deployed."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adapters.filesystem import calls
from adapters.formats import qcow2
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from adapters.zones import bases, layout
from pipeline.errors import NotFound
from pipeline.ports import Chain, ImageFormat, Layer, ReplicaDisk, StoredBase

SHALLOW = "shallow"  # the method of a replica disk that depends on the source itself


def find_base(zone: Path, digest: str) -> StoredBase:
    base = bases.find(zone, digest)
    if base is None:
        raise NotFound(
            f"the zone {zone} holds no base {digest}", hint="replicate the version to it first"
        )
    return base


def make(
    sandbox: Sandbox, base: StoredBase, directories: Sequence[Path], lun: int | None, backing: str
) -> list[ReplicaDisk]:
    """One child of a base in each directory: a clone where both files can share blocks, else an
    overlay that finds the base by `backing` + its file name.

    qemu is asked for one overlay only: those of one base do not differ, so the others are copies
    of it (200 KB each; a sandboxed qemu-img takes 20 ms).
    """
    made: list[ReplicaDisk] = []
    for directory in directories:
        first = made[0] if made else None
        made.append(
            _child(sandbox, base, directory, lun, backing)
            if first is None or first.format is ImageFormat.RAW
            else again(first, directory)
        )
    return made


def digested(disk: ReplicaDisk) -> ReplicaDisk:
    """A replica's disk with the digest of its file, if that is an overlay: nobody writes to it any
    more. A clone's bytes are those that the manifest of its base has."""
    if disk.format is ImageFormat.RAW:
        return disk
    return replace(disk, file_digest=layout.file_digest(disk.path))


def problem(disk: ReplicaDisk, base: StoredBase | None) -> str:
    """Why a replica's file is not what was made, for people; empty when nothing shows it. What is
    below an overlay is read by the name in its header, and that is not part of its content."""
    if disk.format is ImageFormat.RAW:
        return ""
    layout.check_file(disk.path)
    if disk.file_digest:
        return "" if layout.file_digest(disk.path) == disk.file_digest else "its file has changed"
    if base is None:
        return ""
    with disk.path.open("rb") as file:
        name = qcow2.backing_name(file)
    wanted = f"../../../{layout.BASES}/{base.digest}/{base.chain[0].path.name}"
    return "" if name == wanted else f"its backing file is {name!a:.200}"


def again(disk: ReplicaDisk, directory: Path) -> ReplicaDisk:
    """A copy of an overlay, backing reference and all, in another directory."""
    path = directory / disk.path.name
    if not calls.clone(disk.path, path):
        shutil.copyfile(disk.path, path)
    return replace(disk, path=path)


def create_overlay(
    sandbox: Sandbox, chain: Chain, path: Path, virtual_size: int, *, overlay: Path | None
) -> None:
    """Make `path` a qcow2 over source files where they lie. With `overlay`, a qcow2 over the same
    disk, `path` has its content: what was edited."""
    backing, driver = _reference([replace(layer, fd=None) for layer in chain])
    if overlay is None:
        img.create_qcow2(sandbox, path, virtual_size, backing=backing, backing_format=driver)
        return
    if not calls.clone(overlay, path):
        shutil.copyfile(overlay, path)
    img.rebase(sandbox, path, backing=backing, backing_format=driver)


def _reference(chain: Sequence[Layer]) -> tuple[str, str]:
    """What an overlay's header says of source files: a plain path where that says it all."""
    top = chain[0]
    driver = top.format.qemu_name
    if len(chain) == 1 and top.format in (ImageFormat.RAW, ImageFormat.QCOW2):
        return str(top.path.absolute()), driver
    return img.backing_name(tuple(chain), Sandbox(enabled=False)), driver


def _child(
    sandbox: Sandbox, base: StoredBase, directory: Path, lun: int | None, backing: str
) -> ReplicaDisk:
    name = layout.disk_name(lun)
    top = base.chain[0]
    if top.format is ImageFormat.RAW:
        path = directory / f"{name}.raw"
        if calls.clone(top.path, path):
            if path.stat().st_size != base.virtual_size:
                raise layout.damaged(top.path, f"it has {path.stat().st_size} bytes")
            return ReplicaDisk(
                lun, path, ImageFormat.RAW, "reflink", base.digest, base.virtual_size
            )
        path.unlink()
    path = directory / f"{name}.qcow2"
    img.create_qcow2(
        sandbox,
        path,
        base.virtual_size,
        backing=backing + top.path.name,
        backing_format=top.format.qemu_name,
    )
    return ReplicaDisk(lun, path, ImageFormat.QCOW2, "overlay", base.digest, base.virtual_size)
