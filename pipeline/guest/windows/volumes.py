"""The other volumes of a Windows guest: D: and further, on any of its disks. They have no identity,
but paging files and recycle bins.
"""

from collections.abc import Mapping, Sequence

from pipeline.errors import GalleriaError, StageFailed
from pipeline.guest.operations import Change, Context, Editor, Operation
from pipeline.guest.windows.classify import Classification
from pipeline.ports import GuestSession


def clean_others(
    session: GuestSession,
    found: Classification,
    operations: Sequence[Operation],
    context: Context,
) -> Mapping[str, list[Change]]:
    """Perform the operations that treat every volume on those that are not the system's. The
    changes by the operation's name, their paths behind the volume's device."""
    chosen = [operation for operation in operations if operation.every_volume]
    system = {device for _, device in context.facts.mountpoints}
    changes: dict[str, list[Change]] = {operation.name: [] for operation in chosen}
    for device in found.volumes if chosen else ():
        if device in system:
            continue
        guest = session.mount_volume(device)
        for operation in chosen:
            edit = Editor(guest, operation.name)
            try:
                operation.perform(edit, context)
            except GalleriaError as error:
                raise StageFailed(
                    f"generalize failed in {operation.name} on {device}: {error.message}",
                    hint=error.hint or f"--skip {operation.name} leaves it out",
                ) from error
            changes[operation.name] += [
                Change(item.operation, item.action, f"{device}:{item.path}")
                for item in edit.changes
            ]
    return changes
