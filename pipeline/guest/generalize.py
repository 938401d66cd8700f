"""Generalize: take the identity of one machine and its people out of a guest, offline.

One appliance does it all: inspect, mount, each operation, and the list of what the file systems
call free, so that what was deleted is not in the image's bytes (design: free is zero).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.text import printable
from pipeline.errors import GalleriaError, StageFailed
from pipeline.guest.checks import DEFAULTS, Evidence, looks_generalized, windows_state
from pipeline.guest.elsewhere import Elsewhere, treat_elsewhere
from pipeline.guest.homes import services
from pipeline.guest.operations import Change, Context, Editor, Operation, Users, families_of
from pipeline.guest.profiles import Plan
from pipeline.guest.report import redacted
from pipeline.guest.selinux import Labels
from pipeline.guest.survey import GuestCheck, Survey, survey_guest
from pipeline.guest.windows import policy
from pipeline.guest.windows.classify import Classification
from pipeline.guest.windows.volumes import clean_others
from pipeline.ports import Chain, Guest, GuestFacts, GuestHost, Progress
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
        aside = Elsewhere()
        left = _not_performed(plan)
        if windows is None and (found := treat_elsewhere(session, plan.operations, left, context)):
            aside = found
            elsewhere = aside.changes
            guest = session.mount()
        meter.advance(1)
        notes = [*facts.notes, *aside.notes, *_kept(guest, plan), *_moved(facts, plan)]
        for note in (*facts.notes, *aside.unread, *_moved(facts, plan)):
            progress.warn(note)
        labels = Labels(guest)
        done = []
        for operation in plan.operations:
            changes = _perform(operation, guest, context, labels)
            if changes is not None:
                changes = [*changes, *elsewhere.get(operation.name, ())]
            done.append((operation, changes))
            meter.advance(1)
        if windows is None:
            evidence = looks_generalized(guest, facts, left, beside=aside.left)
            evidence = evidence.with_unread(aside.unread)
        else:
            evidence = _of(windows)
        seen = survey_guest(guest, session, facts, evidence, check=check)
        meter.advance(1)
        space = session.free_ranges(zero_rest=True)
        meter.advance(1)
    report = {**_report(plan, done, space.notes, notes), **seen.document()}
    if windows is not None:
        report["windows"] = policy.document(windows, force=plan.policy.force)
    return Generalized(report, space.disks, seen)


def _not_performed(plan: Plan) -> list[Operation]:
    """What is performed leaves nothing to be done again, so that only what was left out has to be
    run dry; but a script of the user's own may have done anything."""
    done = {operation.name for operation in plan.operations if not plan.policy.scripts}
    return [operation for operation in DEFAULTS if operation.name not in done]


def _kept(guest: Guest, plan: Plan) -> list[str]:
    """Accounts that look like people's and stay."""
    if plan.policy.users is Users.NONE:
        return []
    found = services(Editor(guest, "services")).items()
    gone = plan.policy.remove_users
    return [f"the account {n} stays: {unit} runs as it" for n, unit in found if n not in gone]


def _moved(facts: GuestFacts, plan: Plan) -> list[str]:
    """What the guest finds by the machine id, and its clones otherwise."""
    if not facts.var_partition or all(op.name != "machine-id" for op in plan.operations):
        return []
    return ["the guest finds /var by its machine id: /etc/fstab names the partition for clones"]


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
    except Exception as error:  # what a guest is made of must not end more than its own job
        raise StageFailed(
            f"generalize failed in {operation.name}: {type(error).__name__}: "
            f"{printable(str(error))[:300]}",
            hint=f"--skip {operation.name} leaves it out; please report what the guest has there",
        ) from error
    return edit.changes


def _report(
    plan: Plan,
    done: Sequence[tuple[Operation, list[Change] | None]],
    free: Sequence[str],
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
        "free_space": list(free),
        "notes": [redacted(note) for note in notes],
    }


def result(changes: list[Change] | None) -> str:
    if changes is None:
        return "not applicable"
    return "changed" if changes else "nothing to do"
