"""Generalize: take the identity of one machine and its people out of a guest, offline.

One appliance does it all: inspect, mount, each operation, and the list of what the file systems
call free, so that what was deleted is not in the image's bytes (design: free is zero).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.extents import Range
from pipeline.errors import GalleriaError, Refused, StageFailed
from pipeline.guest.operations import Change, Context, Editor, Operation
from pipeline.guest.profiles import Plan
from pipeline.ports import Chain, Guest, GuestFacts, GuestHost, Progress

REPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Generalized:
    """`free` has each disk's ranges that are to be read as zero; `report` is JSON."""

    report: dict[str, Any]
    free: tuple[tuple[Range, ...], ...]
    facts: GuestFacts


def generalize(
    host: GuestHost, chains: Sequence[Chain], plan: Plan, progress: Progress
) -> Generalized:
    """Generalize the guest on `chains` (OS disk first), whose top layers are private overlays.

    Raises StageFailed, naming the operation, when one fails: what was done so far is in the
    overlays, to be thrown away. Raises Refused for a guest that can't be generalized offline.
    """
    with (
        progress.stage("generalize", total=len(plan.operations) + 3, unit="step") as meter,
        host.session(chains, writable=True) as session,
    ):
        facts = session.inspect()
        _refuse_windows(facts)
        meter.advance(1)
        guest = session.mount()
        meter.advance(1)
        context = Context(facts, plan.policy)
        done = []
        for operation in plan.operations:
            done.append((operation, _perform(operation, guest, context)))
            meter.advance(1)
        space = session.free_ranges(zero_rest=True)
        meter.advance(1)
    return Generalized(_report(plan, facts, done, space.notes), space.disks, facts)


def _refuse_windows(facts: GuestFacts) -> None:
    if facts.os_type == "windows":
        raise Refused(
            f"a Windows guest ({facts.product_name}) cannot be generalized offline: its ids, keys "
            "and device database can only be reset by Sysprep, in the running guest",
            hint="run sysprep /generalize /oobe /shutdown in it, then use --no-generalize",
        )


def _perform(operation: Operation, guest: Guest, context: Context) -> list[Change] | None:
    """What the operation changed; None where it does not apply to the guest."""
    # a guest of unknown type that has a root file system is a Linux without os-release
    os_type = "linux" if context.facts.os_type == "unknown" else context.facts.os_type
    if os_type not in operation.families:
        return None
    edit = Editor(guest, operation.name)
    try:
        operation.perform(edit, context)
    except GalleriaError as error:
        raise StageFailed(
            f"generalize failed in {operation.name}: {error.message}",
            hint=error.hint or f"--skip {operation.name} leaves it out",
        ) from error
    return edit.changes


def _report(
    plan: Plan,
    facts: GuestFacts,
    done: Sequence[tuple[Operation, list[Change] | None]],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "version": REPORT_VERSION,
        "profile": plan.profile,
        "guest": {
            "os_type": facts.os_type,
            "distribution": facts.distribution,
            "version": facts.version,
            "product_name": facts.product_name,
            "architecture": facts.architecture,
        },
        "operations": [
            {
                "name": operation.name,
                "result": result(changes),
                "changes": [
                    {"action": change.action.value, "path": printable(change.path)}
                    for change in changes or ()
                ],
            }
            for operation, changes in done
        ],
        "free_space": list(notes),
    }


def result(changes: list[Change] | None) -> str:
    if changes is None:
        return "not applicable"
    return "changed" if changes else "nothing to do"


def printable(path: str) -> str:
    """A guest's path is hostile: what is no printable character is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)
