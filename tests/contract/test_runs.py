"""Runs in the catalog, over the in-memory double, SQLite and PostgreSQL."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from adapters.catalog import open_catalog, sql
from pipeline.errors import (
    Conflict,
    HeldByRun,
    LeaseLost,
    NotFound,
    RunCancelled,
    TooManyRequests,
)
from pipeline.gallery.service.running import OwnRun, RunTerms, attendance
from pipeline.gallery.services import Services
from pipeline.model import Region
from pipeline.model.access import Identity
from pipeline.model.runs import Presence, Run, RunError, RunKind, RunState
from pipeline.ports.catalog import Catalog
from tests.samples import NOW, FakeRunHost

ANY = "/subscriptions/x"


def service(catalog: Catalog, host: FakeRunHost | None = None) -> Services:
    identity = Identity("root@host")
    return Services(catalog, [Region("eu")], identity, host or FakeRunHost())


def run(id: str = "a1", **changes: object) -> Run:
    return replace(Run(id, RunKind.PUBLISH, ANY, NOW), **changes)  # type: ignore[arg-type]


def stored(catalog: Catalog, id: str) -> Run:
    with catalog.read() as reader:
        found = reader.run(id)
    assert found is not None
    return found


def test_a_run_comes_back_as_it_was_put(catalog: Catalog) -> None:
    whole = run(
        request={"name": "corp/web/1.0.0", "regions": ["eu"]},
        digest="d",
        lease=NOW + timedelta(seconds=30),
        step="store",
        done=1 << 40,
        total=1 << 41,
        error=RunError("NoSpace", "the file system of /a is full", "free some"),
    )
    with catalog.write() as writer:
        writer.put_run(run())
        writer.put_run(whole)
        assert writer.run("a1") == whole
    with catalog.read() as reader:
        assert (reader.run("a1"), reader.run("a")) == (whole, None)


def test_lists_are_newest_first_and_leave_out_what_has_ended(catalog: Catalog) -> None:
    later = NOW + timedelta(seconds=1)
    with catalog.write() as writer:
        writer.put_run(run("a", state=RunState.WAITING))
        writer.put_run(run("b", started=later))
        writer.put_run(run("c", started=later + timedelta(1), state=RunState.FAILED))
        writer.put_run(run("d", state=RunState.SUCCEEDED))
        writer.delete_run("d")
        writer.delete_run("d")
    with catalog.read() as reader:
        assert [item.id for item in reader.runs()] == ["b", "a"]
        assert [item.id for item in reader.runs(ended=True)] == ["c", "b", "a"]


def test_the_clock_is_the_catalogs_own(catalog: Catalog) -> None:
    with catalog.read() as reader:
        now = reader.now()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=10)


def test_a_run_is_recorded_while_it_lasts_and_when_it_has_ended(catalog: Catalog) -> None:
    host = FakeRunHost()
    ask = service(catalog, host)
    with ask.job_runs.opened(RunKind.REPLICATE, ANY, {"to": "eu"}, "d") as own:
        begun = stored(catalog, own.record.id)
        assert begun.state is RunState.RUNNING
        assert (begun.kind, begun.object, begun.request) == (RunKind.REPLICATE, ANY, {"to": "eu"})
        assert (begun.host, begun.boot_id, begun.pid, begun.actor) == (
            *("build1", "boot", 1234),
            "root@host",
        )
        assert begun.heartbeat is not None
        assert begun.lease == begun.heartbeat + timedelta(seconds=30)
        own.tell("store", 100)
        own.done += 40
        host.beat()
        beaten = stored(catalog, own.record.id)
        assert (beaten.step, beaten.done, beaten.total) == ("store", 40, 100)
        assert beaten.lease is not None
        assert beaten.lease > begun.lease
    ended = stored(catalog, own.record.id)
    assert (ended.state, ended.lease, ended.error) == (RunState.SUCCEEDED, None, None)
    assert ended.finished is not None
    assert host.acts == []


def test_a_run_inside_another_is_a_part_of_it(catalog: Catalog) -> None:
    ask = service(catalog)
    with ask.job_runs.opened(RunKind.PUBLISH, ANY) as outer:
        with ask.job_runs.opened(RunKind.DELETE, ANY) as inner:
            assert inner is outer
        assert stored(catalog, outer.record.id).state is RunState.RUNNING
    with catalog.read() as reader:
        assert len(reader.runs(ended=True)) == 1


def test_how_a_run_failed_is_recorded(catalog: Catalog) -> None:
    ask = service(catalog)
    with (
        pytest.raises(NotFound),
        ask.job_runs.opened(RunKind.PUBLISH, ANY) as own,
    ):
        raise NotFound("no such file: x", hint="look")
    failed = stored(catalog, own.record.id)
    assert failed.state is RunState.FAILED
    assert failed.error == RunError("NotFound", "no such file: x", "look")


def test_an_interrupted_run_is_cancelled(catalog: Catalog) -> None:
    ask = service(catalog)
    with pytest.raises(KeyboardInterrupt), ask.job_runs.opened(RunKind.PUBLISH, ANY) as own:
        raise KeyboardInterrupt
    assert stored(catalog, own.record.id).state is RunState.CANCELLED


def test_what_was_taken_over_changes_nothing_any_more(catalog: Catalog) -> None:
    host = FakeRunHost()
    ask = service(catalog, host)

    def overtaken(own: OwnRun) -> None:
        with catalog.write() as writer:
            writer.put_run(replace(stored(catalog, own.record.id), token=2))
        with pytest.raises(LeaseLost):
            ask.gallery.create_tenant("44444444-4444-4444-4444-444444444444")
        with pytest.raises(LeaseLost):
            own.check()
        host.beat()
        host.beat()
        assert host.interrupted == 1
        raise KeyboardInterrupt  # what the signal does

    with pytest.raises(LeaseLost) as caught, ask.job_runs.opened(RunKind.PUBLISH, ANY) as own:
        overtaken(own)
    assert "another process has taken it over" in caught.value.message
    assert caught.value.exit_status == 5
    kept = stored(catalog, own.record.id)
    assert (kept.token, kept.state) == (2, RunState.RUNNING)


def test_a_lease_that_ran_out_and_was_taken_by_nobody_is_prolonged(catalog: Catalog) -> None:
    ask = service(catalog)
    with ask.job_runs.opened(RunKind.PUBLISH, ANY) as own:
        with catalog.write() as writer:
            past = writer.now() - timedelta(hours=1)
            writer.put_run(replace(own.record, lease=past, heartbeat=past))
        own.check()
        lease = stored(catalog, own.record.id).lease
        assert lease is not None
        assert lease > past


def test_a_cancelled_run_ends(catalog: Catalog) -> None:
    host = FakeRunHost()
    ask = service(catalog, host)

    def told_to_end(own: OwnRun) -> None:
        assert service(catalog).runs.cancel_run(own.record.id[:6]).cancelling
        host.beat()
        host.beat()
        assert host.interrupted == 1
        own.check()
        ask.gallery.create_tenant("44444444-4444-4444-4444-444444444444")  # it may tidy up
        raise KeyboardInterrupt  # what the signal does

    with pytest.raises(RunCancelled), ask.job_runs.opened(RunKind.PUBLISH, ANY) as own:
        told_to_end(own)
    assert stored(catalog, own.record.id).state is RunState.CANCELLED
    with pytest.raises(Conflict, match="has ended: Cancelled"):
        ask.runs.cancel_run(own.record.id)


def test_a_run_is_named_by_the_beginning_of_its_id(catalog: Catalog) -> None:
    with catalog.write() as writer:
        for id in ("abc1", "abd1", "abd"):
            writer.put_run(run(id))
    ask: Callable[[str], Run] = service(catalog).runs.get_run
    assert ask("ABC").id == "abc1"
    assert ask("abd").id == "abd"
    with pytest.raises(Conflict, match="3 runs begin with 'ab'"):
        ask("ab")
    for unknown in ("x", ""):
        with pytest.raises(NotFound, match="there is no run"):
            ask(unknown)


def test_a_server_that_comes_back_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not url.startswith("postgresql"):
        return
    monkeypatch.setattr(sql, "PAUSE_SECONDS", 0.01)
    with contextlib.closing(open_catalog(url)) as made:
        with made.read() as reader:
            assert reader.runs() == []
        connect, away = made._engine.connect, iter(range(3))

        def refused() -> sa.Connection:
            if next(away, None) is not None:
                raise sa.exc.OperationalError("connect", None, OSError("connection refused"))
            return connect()

        monkeypatch.setattr(made._engine, "connect", refused)
        with made.read() as reader:
            assert reader.runs() == []


def test_a_connection_that_died_costs_no_job(url: str) -> None:
    """The server ends all sessions, as it does when it is started again: those that wait in the
    pool, and that of a run that goes on, which is there again after its next beat."""
    if not url.startswith("postgresql"):
        return
    with contextlib.closing(open_catalog(url)) as made:
        host = FakeRunHost()
        ask = service(made, host)
        with ask.job_runs.opened(RunKind.PUBLISH, ANY) as own:
            with made.read() as reader:
                assert reader.presence(attendance(own.record.id, 1)) is Presence.THERE
            cut(url)
            with made.read() as reader:
                assert reader.presence(attendance(own.record.id, 1)) is Presence.UNSEEN
            host.beat()
            with made.read() as reader:
                assert reader.presence(attendance(own.record.id, 1)) is Presence.THERE
        assert stored(made, own.record.id).state is RunState.SUCCEEDED


def cut(url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


def test_a_process_is_there_until_it_ends(catalog: Catalog) -> None:
    with catalog.attend("a1"), catalog.attend("b2"), catalog.read() as reader:
        assert reader.presence("a1") is Presence.THERE
        assert reader.presence("b2") is Presence.THERE
        assert reader.presence("c3") is not Presence.THERE
    with catalog.read() as reader:
        assert reader.presence("a1") is not Presence.THERE


def test_a_run_that_was_left_is_begun_by_the_next_process(catalog: Catalog) -> None:
    ask, other = service(catalog), service(catalog)
    left = ask.job_runs.leave(RunKind.REPLICATE, ANY, {"version": "v"})
    assert stored(catalog, left.id).state is RunState.WAITING
    with other.job_runs.resumed(left) as own:
        assert own.record.request == {"version": "v"}
        assert stored(catalog, left.id).state is RunState.RUNNING
        with pytest.raises(HeldByRun):  # also for who has read it as it is now
            ask.job_runs.resumed(stored(catalog, left.id)).__enter__()
    assert stored(catalog, left.id).state is RunState.SUCCEEDED
    with pytest.raises(Conflict, match="Succeeded"):
        ask.job_runs.resumed(stored(catalog, left.id)).__enter__()


def test_what_was_cancelled_before_it_began_is_not_begun(catalog: Catalog) -> None:
    ask = service(catalog)
    left = ask.job_runs.leave(RunKind.REPLICATE, ANY, {})
    assert ask.runs.cancel_run(left.id).state is RunState.CANCELLED
    with pytest.raises(Conflict, match="Cancelled"):
        ask.job_runs.resumed(left).__enter__()


def test_a_resumed_run_is_fenced_off_from_the_process_that_had_it(catalog: Catalog) -> None:
    first, second = service(catalog), service(catalog)

    def resumed_by_another(own: OwnRun) -> None:
        with catalog.write() as writer:
            past = writer.now() - timedelta(hours=1)
            writer.put_run(replace(own.record, lease=past, heartbeat=past))
        with second.job_runs.resumed(stored(catalog, own.record.id)) as again:
            assert again.record.token == own.record.token + 1
            assert first.job_runs.lost(first.job_runs.tag)
            assert not first.job_runs.lost(second.job_runs.tag)
            own.check()

    with pytest.raises(LeaseLost), first.job_runs.opened(RunKind.PUBLISH, ANY) as own:
        resumed_by_another(own)
    assert stored(catalog, own.record.id).token == 2


def test_a_run_whose_process_died_ends_when_the_next_begins(catalog: Catalog) -> None:
    with catalog.write() as writer:
        now = writer.now()
        lease = now + timedelta(seconds=30)
        writer.put_run(run("a1", lease=lease, heartbeat=now))
        writer.put_run(run("b2", lease=now - timedelta(days=2), heartbeat=now - timedelta(days=2)))
        writer.put_run(run("c3", state=RunState.WAITING))
    with catalog.attend(attendance("a1", 1)), service(catalog).job_runs.opened(RunKind.GC, "/"):
        assert stored(catalog, "a1").state is RunState.RUNNING
        assert stored(catalog, "b2").state is RunState.FAILED
        assert stored(catalog, "c3").state is RunState.WAITING
    error = stored(catalog, "b2").error
    assert error is not None
    assert error.code == "Died"


def test_runs_are_forgotten_a_month_after_their_end(catalog: Catalog) -> None:
    with catalog.write() as writer:
        now = writer.now()
        for id, days in (("a1", 29), ("b2", 31)):
            ended = now - timedelta(days=days)
            writer.put_run(run(id, started=ended, finished=ended, state=RunState.FAILED))
        writer.put_run(run("c3", started=now - timedelta(days=99), state=RunState.WAITING))
    host = FakeRunHost()
    assert [item.id for item in service(catalog, host).job_runs.tidy()] == ["b2"]
    assert host.removed == ["b2"]
    with catalog.read() as reader:
        assert {item.id for item in reader.runs(ended=True)} == {"a1", "c3"}


# --- runs that another process does ---------------------------------------------------------------


def test_what_is_reserved_is_another_processs_to_do(catalog: Catalog) -> None:
    ask = service(catalog)
    with ask.job_runs.reserved(RunKind.PUBLISH, ANY, {"version": "x"}, "d") as mine:
        assert ask.job_runs.id == mine.id
        with catalog.read() as reader:
            assert ask.job_runs.holder(reader, mine.id) is None  # it is this one's own
    assert ask.job_runs.current is None
    found = stored(catalog, mine.id)
    assert (found.state, found.token, found.kept, found.digest) == (RunState.WAITING, 0, True, "d")
    other = service(catalog)
    with catalog.read() as reader:  # what was taken for it is nobody else's, until it should begin
        held = other.job_runs.holder(reader, mine.id)
    assert held is not None
    assert held.free_in is None
    with other.job_runs.resumed(found) as own:
        assert (own.record.token, own.record.request) == (1, {"version": "x"})
        with pytest.raises(HeldByRun), service(catalog).job_runs.resumed(found):
            pytest.fail("it was begun twice")
    assert stored(catalog, mine.id).state is RunState.SUCCEEDED


def test_what_could_not_be_taken_leaves_no_run(catalog: Catalog) -> None:
    ask = service(catalog)
    with pytest.raises(Conflict), ask.job_runs.reserved(RunKind.PUBLISH, ANY, {}):
        raise Conflict("it is there already")
    assert ask.job_runs.current is None
    with ask.job_runs.reserved(RunKind.UPDATE, ANY, {}) as mine:
        pass
    ask.job_runs.unneeded(mine)
    with catalog.read() as reader:
        assert reader.runs(ended=True) == []


def test_runs_that_are_kept_are_found_when_nobody_works_on_them(catalog: Catalog) -> None:
    ask = service(catalog)
    with ask.job_runs.reserved(RunKind.PUBLISH, ANY, {}) as mine:
        pass
    assert ask.job_runs.deserted() == []  # its process may be about to begin
    late = replace(stored(catalog, mine.id), lease=NOW)
    with catalog.write() as writer:
        writer.put_run(late)
        writer.put_run(run("b", state=RunState.WAITING))  # not kept
        writer.put_run(run("c", state=RunState.RUNNING, lease=NOW))
        writer.put_run(run("d", state=RunState.SUCCEEDED, kept=True))
    assert [item.id for item in ask.job_runs.deserted()] == [mine.id]
    with service(catalog).job_runs.resumed(late):
        assert ask.job_runs.deserted() == []
    assert ask.job_runs.deserted() == []


def test_a_kept_run_whose_process_died_is_not_ended_by_others(catalog: Catalog) -> None:
    dead = run("b", kept=True, lease=NOW - timedelta(days=9), token=1)
    with catalog.write() as writer:
        writer.put_run(dead)
    ask = service(catalog)
    ask.job_runs.tidy()
    assert stored(catalog, "b") == dead
    assert ask.job_runs.deserted() == [dead]


def test_a_kept_run_that_kills_its_processes_ends(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.put_run(run("b", kept=True, lease=NOW, token=5))
    ask = service(catalog)
    assert ask.job_runs.deserted() == []
    ended = stored(catalog, "b")
    assert ended.state is RunState.FAILED
    assert ended.error == RunError("Died", "its process ended 5 times without a word")


def test_a_principal_has_so_many_at_once(catalog: Catalog) -> None:
    identity = Identity("root@host", "ci")
    terms = RunTerms(most=2)
    ask = Services(catalog, [Region("eu")], identity, FakeRunHost(), terms=terms)
    for _ in range(2):
        with ask.job_runs.reserved(RunKind.DELETE, ANY, {}) as last:
            pass
    with (
        pytest.raises(TooManyRequests, match="2 operations that are not done"),
        ask.job_runs.reserved(RunKind.DELETE, ANY, {}),
    ):
        pytest.fail("one too many")
    with service(catalog).job_runs.reserved(RunKind.DELETE, ANY, {}):  # the operator may
        pass
    with service(catalog).job_runs.resumed(stored(catalog, last.id)):
        pass
    with ask.job_runs.reserved(RunKind.DELETE, ANY, {}):
        pass
