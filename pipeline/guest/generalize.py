"""Generalize: take the identity of one machine and its people out of a guest, offline.

One appliance does it all: inspect, mount, each operation, and the list of what the file systems
call free, so that what was deleted is not in the image's bytes (design: free is zero).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import GalleriaError, StageFailed
from pipeline.guest.checks import Evidence, looks_generalized, windows_state
from pipeline.guest.operations import Change, Context, Editor, Operation, families_of
from pipeline.guest.profiles import Plan
from pipeline.guest.report import redacted
from pipeline.guest.selinux import Labels
from pipeline.guest.survey import GuestCheck, Survey, survey_guest
from pipeline.guest.windows import policy
from pipeline.guest.windows.classify import Classification
from pipeline.guest.windows.volumes import clean_others
from pipeline.ports import Chain, Guest, GuestHost, Progress
from pipeline.ports.extents import Range

REPORT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Generalized:
    """`free` has each disk's ranges that are to be read as zero; `report` is JSON; `seen` is what
    the guest was at the end."""

    report: dict[str, Any]
    free: tuple[tuple[Range, ...], ...]
    seen: Survey


def generalize(
    host: GuestHost,
    chains: Sequence[Chain],
    plan: Plan,
    progress: Progress,
    *,
    check: GuestCheck | None = None,
) -> Generalized:
    """Generalize the guest on `chains` (OS disk first), whose top layers are private overlays.
    `check` is made of it afterwards.

    Raises StageFailed, naming the operation, when one fails: what was done so far is in the
    overlays, to be thrown away. Raises Refused for a Windows guest that Sysprep has not
    generalized, or that can't be written safely: then nothing was written.
    """
    with (
        progress.stage("generalize", total=len(plan.operations) + 4, unit="step") as meter,
        host.session(chains, writable=True) as session,
    ):
        facts = session.inspect()
        windows = windows_state(session, facts)
        if windows is not None:
            policy.admit(windows, force=plan.policy.force)
            for warning in policy.warnings(windows, plan.operations):
                progress.warn(warning)
        meter.advance(1)
        context = Context(facts, plan.policy, () if windows is None else windows.paging)
        elsewhere = (
            {} if windows is None else clean_others(session, windows, plan.operations, context)
        )
        guest = session.mount()
        meter.advance(1)
        labels = Labels(guest)
        done = []
        for operation in plan.operations:
            changes = _perform(operation, guest, context, labels)
            if changes is not None:
                changes = [*changes, *elsewhere.get(operation.name, ())]
            done.append((operation, changes))
            meter.advance(1)
        evidence = looks_generalized(guest) if windows is None else _of(windows)
        seen = survey_guest(guest, session, facts, evidence, check=check)
        meter.advance(1)
        space = session.free_ranges(zero_rest=True)
        meter.advance(1)
    report = {**_report(plan, done, space.notes), **seen.document()}
    if windows is not None:
        report["windows"] = policy.document(windows, force=plan.policy.force)
    return Generalized(report, space.disks, seen)


def _of(windows: Classification) -> Evidence:
    return Evidence(windows.verdict.value, windows.reasons)


def _perform(
    operation: Operation, guest: Guest, context: Context, labels: Labels
) -> list[Change] | None:
    """What the operation changed; None where it does not apply to the guest."""
    if not families_of(context.facts) & set(operation.families):
        return None
    edit = Editor(guest, operation.name, labels)
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
    done: Sequence[tuple[Operation, list[Change] | None]],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "version": REPORT_VERSION,
        "profile": plan.profile,
        "operations": [
            {
                "name": operation.name,
                "result": result(changes),
                "changes": [
                    {"action": change.action.value, "path": redacted(change.path)}
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
