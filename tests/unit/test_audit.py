"""The audit chain: what was recorded verifies, and no change of it does."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidParameter, VerificationFailed
from pipeline.gallery.audit import append, parse_head, verify
from pipeline.model.audit import GENESIS, Actor, AuditEntry, AuditHead, Event

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ACTOR = Actor("alice", "root@build1", "r1")


def chain(count: int = 6) -> list[AuditEntry]:
    head, entries = AuditHead(), []
    for index in range(count):
        event = Event("Microsoft.Compute/galleries/write", f"/g{index}", allowed=index % 3 != 2)
        entry = append(head, event, ACTOR, NOW + timedelta(seconds=index))
        head = AuditHead(entry.seq, entry.hash)
        entries.append(entry)
    return entries


def head_of(entries: list[AuditEntry]) -> AuditHead:
    return AuditHead(entries[-1].seq, entries[-1].hash) if entries else AuditHead()


def test_an_entry_is_canonical_json_and_its_hash_covers_the_one_before() -> None:
    actor = Actor("älice\x1b[31m", "root", "r\u2028")
    zone = timezone(timedelta(hours=2))
    event = Event("a/write", "/x\ud800", details="d")
    entry = append(AuditHead(7, "ab" * 32), event, actor, NOW.astimezone(zone))
    assert entry.seq == 8
    assert entry.text == (
        r'{"action":"a/write","actor":"\u00e4lice\u001b[31m","allowed":true,"details":"d",'
        r'"object":"/x\ud800","operator":"root","request":"r\u2028","seq":8,'
        r'"time":"2026-11-23T12:00:00.000000+00:00"}'
    )
    assert entry.hash == blake3(("ab" * 32 + entry.text).encode()).hexdigest()
    assert entry.content["actor"] == actor.name


def test_a_whole_chain_verifies() -> None:
    entries = chain()
    assert verify(entries, head_of(entries)) == head_of(entries)
    assert verify([], AuditHead()) == AuditHead(0, GENESIS)
    for entry in entries:
        assert verify(entries, head_of(entries), AuditHead(entry.seq, entry.hash))
    assert verify(entries, head_of(entries), AuditHead())


def edited(entries: list[AuditEntry], index: int, **changes: object) -> list[AuditEntry]:
    text = json.dumps({**json.loads(entries[index].text), **changes}, sort_keys=True)
    return [*entries[:index], replace(entries[index], text=text), *entries[index + 1 :]]


@given(index=st.integers(0, 5), at=st.integers(0, 10_000), char=st.characters(codec="utf-8"))
def test_any_edit_of_a_text_is_found(index: int, at: int, char: str) -> None:
    entries = chain()
    text = entries[index].text
    at %= len(text)
    if text[at] == char:
        return
    changed = replace(entries[index], text=text[:at] + char + text[at + 1 :])
    with pytest.raises(VerificationFailed, match=f"entry {index + 1} is not what was recorded"):
        verify([*entries[:index], changed, *entries[index + 1 :]], head_of(entries))


@pytest.mark.parametrize("index", range(6))
def test_any_removal_is_found(index: int) -> None:
    entries = chain()
    rest = entries[:index] + entries[index + 1 :]
    with pytest.raises(VerificationFailed, match=f"entry {index + 1} is missing"):
        verify(rest, head_of(entries))


@pytest.mark.parametrize("index", range(5))
def test_any_exchange_is_found(index: int) -> None:
    entries = chain()
    entries[index], entries[index + 1] = entries[index + 1], entries[index]
    with pytest.raises(VerificationFailed, match=f"entry {index + 1} is missing"):
        verify(entries, head_of(entries))
    numbered = chain()
    first, second = numbered[index], numbered[index + 1]
    numbered[index] = replace(second, seq=first.seq)
    numbered[index + 1] = replace(first, seq=second.seq)
    with pytest.raises(VerificationFailed, match=f"entry {index + 1} is not what was recorded"):
        verify(numbered, head_of(chain()))


def test_an_insertion_and_a_repetition_are_found() -> None:
    entries = chain()
    forged = append(AuditHead(3, entries[2].hash), Event("x", "/y"), ACTOR, NOW)
    with pytest.raises(VerificationFailed, match="entry 4"):
        verify([*entries[:3], forged, *entries[3:]], head_of(entries))
    with pytest.raises(VerificationFailed, match="entry 4 is missing"):
        verify([*entries[:3], *entries[2:]], head_of(entries))


@pytest.mark.parametrize("left", range(6))
def test_a_truncation_is_found_by_the_head(left: int) -> None:
    entries = chain()
    with pytest.raises(VerificationFailed, match=f"entry {left + 1} is missing"):
        verify(entries[:left], head_of(entries))


@pytest.mark.parametrize("left", range(6))
def test_an_exported_head_finds_what_a_forger_of_everything_hides(left: int) -> None:
    entries = chain()
    exported = head_of(entries)
    cut = entries[:left]
    with pytest.raises(VerificationFailed, match="shorter than the given head"):
        verify(cut, head_of(cut), exported)
    for index in range(left, 7):
        event = Event("forged", f"/{index}")
        cut.append(append(head_of(cut), event, ACTOR, NOW))
    assert verify(cut, head_of(cut))
    with pytest.raises(VerificationFailed, match="written anew"):
        verify(cut, head_of(cut), exported)


def test_an_entry_that_hashes_well_and_has_another_number_is_found() -> None:
    entries = chain(1)
    text = entries[0].text.replace('"seq":1', '"seq":2')
    forged = AuditEntry(1, text, blake3((GENESIS + text).encode()).hexdigest())
    with pytest.raises(VerificationFailed, match="not where it was recorded"):
        verify([forged], head_of([forged]))
    noise = AuditEntry(1, "[]", blake3((GENESIS + "[]").encode()).hexdigest())
    with pytest.raises(VerificationFailed, match="not where it was recorded"):
        verify([noise], head_of([noise]))


def test_heads_are_texts() -> None:
    head = head_of(chain())
    assert parse_head(str(head)) == head
    for text in ("", "1", f"1:{'g' * 64}", f"-1:{'a' * 64}", f"1:{'a' * 63}", f"01:{'a' * 64}"):
        with pytest.raises(InvalidParameter, match="is not an audit head"):
            parse_head(text)
