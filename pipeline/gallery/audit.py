"""The audit record: who did what, or was refused it, in a chain that shows when it was tampered
with.

Each entry is a canonical JSON text, and its hash is BLAKE3 over the hash before it and that text:
an entry that is edited, removed, moved or put in between no longer fits. What the chain can't show
by itself is that its end was cut off by someone who could write the catalog; for that the head
(number and hash of the last entry) is exported, and given to `verify` later.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime

from blake3 import blake3

from pipeline.errors import InvalidParameter, VerificationFailed
from pipeline.model.access import Action
from pipeline.model.audit import Actor, AuditEntry, AuditHead, Event

_REMOVALS = (Action.AUDIT_CUT.value, Action.CATALOG_REBUILD.value)
_HEAD = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-f]{64})")


def append(head: AuditHead, event: Event, actor: Actor, now: datetime) -> AuditEntry:
    """The entry that comes after `head`. Everything outside of ASCII is escaped in its text, so
    that no name can pass for something else."""
    seq = head.seq + 1
    document = {
        "seq": seq,
        "time": now.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": actor.name,
        "operator": actor.operator,
        "request": actor.request,
        **asdict(event),
    }
    if actor.address:  # entries of commands have none
        document["address"] = actor.address
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return AuditEntry(seq, text, _hash(head.hash, text))


def removal(base: AuditHead, why: str) -> str:
    """What the entry says that removes the entries up to `base`."""
    return f"{why}; the record begins after {base}"


def verify(
    entries: Iterable[AuditEntry],
    head: AuditHead,
    expected: AuditHead | None = None,
    base: AuditHead = AuditHead(),  # noqa: B008 - frozen
) -> AuditHead:
    """Walk the chain from its beginning; returns its head.

    `head` is what the catalog says the end is, `base` what it says the beginning is: an entry of
    the chain must have removed what was before. `expected` is a head that was exported earlier and
    must be a part of the chain. Raises VerificationFailed that names the first entry that is wrong.
    """
    end, removed = base, base == AuditHead()
    if expected is not None and expected.seq < base.seq:
        raise VerificationFailed(
            f"The given head is that of entry {expected.seq}, and the audit record begins after "
            f"entry {base.seq}.",
            hint="give a head that was printed later",
        )
    seen_expected = expected is None or expected == end
    for entry in entries:
        removed = removed or _removes(entry, base)
        if entry.seq != end.seq + 1:
            raise _broken(end.seq + 1, f"missing: the next one there is entry {entry.seq}")
        if entry.hash != _hash(end.hash, entry.text):
            raise _broken(entry.seq, "not what was recorded: its hash does not fit")
        if _seq(entry.text) != entry.seq:
            raise _broken(entry.seq, "not where it was recorded")
        end = AuditHead(entry.seq, entry.hash)
        seen_expected = seen_expected or end == expected
    if not removed:
        raise _broken(base.seq, "missing, and those before it, and no entry says who removed them")
    if end != head:
        raise _broken(
            end.seq + 1, f"missing: the chain ends before entry {head.seq}, which the catalog names"
        )
    if expected is not None and not seen_expected:
        what = (
            "missing: the chain is shorter than the given head"
            if end.seq < expected.seq
            else "not the one of the given head: the chain was written anew"
        )
        raise _broken(min(end.seq + 1, expected.seq), what)
    return end


def parse_head(text: str) -> AuditHead:
    """`SEQ:HASH`, as `galleria audit verify` prints it."""
    match = _HEAD.fullmatch(text)
    if match is None:
        raise InvalidParameter(f"{text!r} is not an audit head: expected SEQ:HASH.")
    return AuditHead(int(match[1]), match[2])


def _removes(entry: AuditEntry, base: AuditHead) -> bool:
    try:
        content = json.loads(entry.text)
        action, details = content.get("action"), str(content.get("details"))
    except (ValueError, AttributeError):
        return False
    return action in _REMOVALS and details == removal(base, details.partition(";")[0])


def _hash(previous: str, text: str) -> str:
    return blake3(previous.encode() + text.encode()).hexdigest()


def _seq(text: str) -> object:
    try:
        return json.loads(text).get("seq")
    except (ValueError, AttributeError):
        return None


def _broken(seq: int, what: str) -> VerificationFailed:
    return VerificationFailed(
        f"The audit record is broken: entry {seq} is {what}.",
        hint="galleria audit list shows what is there; compare with a copy of the catalog",
    )
