"""The runs of this process: opened, kept alive, ended; and why one that was overtaken does no harm.

**Who owns a run.** Whoever has its token. A thread of the process that works on it prolongs its
lease, by the catalog's clock, so that the clocks of hosts do not matter. A process that ended or
hangs prolongs nothing: when the lease is over, whoever wants what the run holds may take it over.

**What an overtaken process can still do.** It may be stopped at any instruction, and go on hours
later. In the catalog each transaction of a run looks first whether the run's token still counts;
writers are alone there, so that nothing comes in between. A lease that ran out and that nobody took
is still the owner's: it is prolonged as if nothing had been.

A file system knows no such transaction: a rename can't ask the catalog. So each change of a zone
moves something out of, or into, a private directory below `staging` that is marked with the run and
its token. The process asks the catalog (`check`), and then renames. Whoever works in a zone first
moves the directories away whose runs were taken over (`lost`). If the check was passed, the
directory was there before the run was taken over, so it is there to be moved away, and the rename
fails, as its directory is gone. Or the rename came before that, and so before anything that the new
owner does in the zone: then it is what a killed process might have left, which the new owner looks
for anyway. In between there is nothing.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pipeline.errors import (
    Conflict,
    GalleriaError,
    HeldByRun,
    LeaseLost,
    RunCancelled,
    TooManyRequests,
)
from pipeline.gallery.audited import AuditedCatalog, Changes
from pipeline.model.access import Identity
from pipeline.model.runs import Held, Presence, Run, RunError, RunKind, RunState
from pipeline.ports.catalog import CatalogReader
from pipeline.ports.runs import Lease, RunHost, RunLog

BEATS = 6  # how often a lease is prolonged while it lasts
DIED = "Died"  # the code of a run whose process ended without a word
KEPT = timedelta(days=30)  # how long a run is remembered after its end
SILENT_FOR_GOOD = timedelta(days=1)  # after its lease: the process is not to be seen, or hangs
TAKES = 5  # how often a process takes a run that is kept: then its job is what ends them
SILENT_BEATS = 2  # without which a process that is not to be seen counts as dead


@dataclass(frozen=True, slots=True)
class RunTerms:
    """`lease` is how long a run that is not heard of keeps what it holds, in seconds. `most` is how
    many runs that are kept a principal may have at once."""

    lease: float = 30.0
    most: int = 32

    @property
    def beat(self) -> float:
        """The seconds between two times at which it is heard of."""
        return self.lease / BEATS


class OwnRun:
    """A run that this process works on. What its step and its bytes are is told by the job, from
    any thread, and recorded with the next beat."""

    def __init__(
        self,
        record: Run,
        catalog: AuditedCatalog,
        host: RunHost,
        log: RunLog,
        terms: RunTerms,
        keep: Callable[[], None],
    ) -> None:
        self.record = record
        self.log = log
        self.step = ""
        self.done = self.total = 0
        self._catalog = catalog
        self._host = host
        self._terms = terms
        self._keep = keep
        self._refused: GalleriaError | None = None

    def tell(self, step: str, total: int = 0) -> None:
        """What the job does now."""
        self.step, self.done, self.total = step, 0, total

    def beat(self) -> None:
        """Prolong the lease, and record how far the job is. When the run is not this process's any
        more, or is to end, the job is interrupted."""
        try:
            self._prolong()
            self._keep()
        except LeaseLost as error:
            self._stop(error)
        except (GalleriaError, OSError):
            return  # the catalog is away: the next beat finds it again

    def guard(self, catalog: CatalogReader) -> None:
        """Raise when the run is not this process's any more. One that was cancelled still is: what
        it began is undone by it."""
        current = catalog.run(self.record.id)
        if current is None or current.token != self.record.token or current.ended:
            raise lost(self.record, current)

    def check(self) -> None:
        """Raise as `guard`; a lease that ran out is prolonged. Call it before what can't be undone
        is done outside of the catalog."""
        with self._catalog.read() as catalog:
            self.guard(catalog)
            current, now = catalog.run(self.record.id), catalog.now()
        if current is None or current.lease is None or current.lease <= now:
            self._prolong()

    def found_lost(self) -> LeaseLost | None:
        """That the run was taken over, if it was: what fails then fails because of that."""
        try:
            self.check()
        except LeaseLost as error:
            return error
        except (GalleriaError, OSError):
            pass
        return None

    @property
    def refused(self) -> GalleriaError | None:
        """Why this process may not go on with the run."""
        return self._refused

    def end(self, state: RunState, error: RunError | None = None) -> None:
        """Record how it ended, unless it is another process's by now."""
        with self._catalog.unguarded() as (catalog, changes):
            current = catalog.run(self.record.id)
            if current is None or current.token != self.record.token or current.ended:
                return
            ended = replace(
                self._told(current),
                state=state,
                finished=catalog.now(),
                lease=None,
                error=error,
                cancelling=False,
            )
            changes.put_run(ended)

    def _prolong(self) -> None:
        with self._catalog.unguarded() as (catalog, changes):
            self.guard(catalog)
            current = catalog.run(self.record.id)
            if current is not None:
                changes.put_run(leased(self._told(current), catalog, self._terms))
        if current is not None and current.cancelling:
            self._stop(RunCancelled(f"the run {current.id} was cancelled"))

    def _stop(self, error: GalleriaError) -> None:
        """The job is to end: once, as what it does then is to undo what it began."""
        if self._refused is None:
            self._refused = error
            self._host.interrupt()

    def _told(self, run: Run) -> Run:
        return replace(run, step=self.step, done=self.done, total=self.total)


class JobRuns:
    """The runs of one identity, and what others hold. One job inside another is a part of that
    one's run."""

    def __init__(
        self, catalog: AuditedCatalog, identity: Identity, host: RunHost, terms: RunTerms
    ) -> None:
        self._catalog = catalog
        self._identity = identity
        self._host = host
        self._terms = terms
        self._current: OwnRun | None = None

    @property
    def current(self) -> OwnRun | None:
        """The run that this process is in."""
        return self._current

    @property
    def id(self) -> str:
        """The run that what is taken now belongs to."""
        if self._current is None:
            raise RuntimeError("nothing is taken outside of a run")
        return self._current.record.id

    @property
    def log(self) -> str:
        """Where the run that this process is in says what it does."""
        if self._current is None:
            raise RuntimeError("there is no log outside of a run")
        return self._current.record.log

    # --- what ended -----------------------------------------------------------------------------

    def tidy(self) -> list[Run]:
        """End the runs whose processes have certainly ended without a word, and forget those that
        ended long ago, with their logs; returns these."""
        with self._catalog.read() as catalog:
            now = catalog.now()
            dead = [run for run in catalog.runs() if _dead(run, catalog)]
            old = [run for run in catalog.runs(ended=True) if _old(run, now)]
        if not dead and not old:
            return []
        with self._catalog.unguarded() as (catalog, changes):
            for run in dead:
                if catalog.run(run.id) == run:
                    error = RunError(DIED, "its process ended without a word")
                    changes.put_run(
                        replace(run, state=RunState.FAILED, finished=now, lease=None, error=error)
                    )
            for run in old:
                changes.delete_run(run.id)
        for run in old:
            self._host.remove_log(run.id)
        return old

    # --- this process's run ---------------------------------------------------------------------

    @contextmanager
    def opened(
        self,
        kind: RunKind,
        object: str,
        request: Mapping[str, Any] | None = None,
        digest: str = "",
    ) -> Iterator[OwnRun]:
        """A run for the length of a `with`, which says how it ended. Raises LeaseLost when another
        process has taken it over, and RunCancelled when somebody cancelled it."""
        if self._current is not None:
            yield self._current
            return
        self.tidy()
        id = uuid.uuid4().hex[:12]
        with self._catalog.attend(attendance(id, 1)) as keep:
            own = self.begin(id, kind, object, request or {}, digest, keep)
            with self._host.every(self._terms.beat, own.beat), self._ended(own):
                yield own

    @contextmanager
    def resumed(self, run: Run) -> Iterator[OwnRun]:
        """A run that waits, or whose process has ended, for the length of a `with`: this process's,
        by a new token. Raises HeldByRun while another process works on it."""
        token = run.token + 1
        with self._catalog.attend(attendance(run.id, token)) as keep:
            own = self._again(run, token, keep)
            with self._host.every(self._terms.beat, own.beat), self._ended(own):
                yield own

    @contextmanager
    def reserved(
        self, kind: RunKind, object: str, request: Mapping[str, Any], digest: str = ""
    ) -> Iterator[Run]:
        """A run that another process is to do, and that is kept. What is taken in the `with`
        belongs to it, as long as the lease that begins here: by then that process has begun, or
        somebody else may take it. When the `with` fails there is no such run."""
        with self._catalog.unguarded() as (catalog, changes):
            self._check_number(catalog)
            run = leased(self._waiting(kind, object, request, catalog), catalog, self._terms)
            run = replace(run, digest=digest, kept=True)
            changes.put_run(run)
        log = self._host.log(run.id)
        self.work_on(OwnRun(run, self._catalog, self._host, log, self._terms, lambda: None))
        try:
            yield run
        except BaseException:
            self.work_on(None)
            self.unneeded(run)
            raise
        self.work_on(None)

    def _check_number(self, catalog: CatalogReader) -> None:
        mine = self._identity.principal
        if mine is None:
            return
        have = sum(run.kept and run.principal == mine for run in catalog.runs())
        if have >= self._terms.most:
            raise TooManyRequests(
                f"'{mine}' has {have} operations that are not done: {self._terms.most} at most are "
                "worked on at once.",
                hint="ask again when some are done: galleria runs list",
            )

    def unneeded(self, run: Run) -> None:
        """Forget a run that was reserved: there is nothing to do."""
        with self._catalog.unguarded() as (_, changes):
            changes.delete_run(run.id)

    def deserted(self) -> list[Run]:
        """The runs that are kept and that nobody works on any more, or has begun. Those that have
        been taken too often end."""
        with self._catalog.read() as catalog:
            now = catalog.now()
            found = [run for run in catalog.runs() if run.kept and self._is_deserted(catalog, run)]
        again = [run for run in found if run.token < TAKES]
        for run in found:
            if run not in again:
                error = RunError(DIED, f"its process ended {run.token} times without a word")
                ended = replace(run, state=RunState.FAILED, finished=now, lease=None, error=error)
                with self._catalog.unguarded() as (catalog, changes):
                    if catalog.run(run.id) == run:
                        changes.put_run(ended)
        return again

    def _is_deserted(self, catalog: CatalogReader, run: Run) -> bool:
        return self.holder(catalog, run.id) is None

    def leave(self, kind: RunKind, object: str, request: Mapping[str, Any]) -> Run:
        """Record a run that another process is to begin."""
        with self._catalog.unguarded() as (catalog, changes):
            run = self._waiting(kind, object, request, catalog)
            changes.put_run(run)
        return run

    def _waiting(
        self, kind: RunKind, object: str, request: Mapping[str, Any], catalog: CatalogReader
    ) -> Run:
        id = uuid.uuid4().hex[:12]
        return Run(
            id,
            kind,
            object,
            started=catalog.now(),
            state=RunState.WAITING,
            request=request,
            actor=self._identity.actor.name,
            principal=self._identity.principal or "",
            host=self._host.name,
            token=0,
            log=str(self._host.log(id).path),
        )

    def _again(self, run: Run, token: int, keep: Callable[[], None]) -> OwnRun:
        log = self._host.log(run.id)
        with self._catalog.unguarded() as (catalog, changes):
            current = catalog.run(run.id)
            waits = current is None or current.state is RunState.WAITING
            held = None if waits else self.holder(catalog, run.id)
            if current is None or current.token != run.token or held is not None:
                heard = None if current is None else current.heartbeat
                raise HeldByRun(
                    f"the run {run.id} is another process's",
                    run=run.id,
                    heard=heard,
                    free_in=None if held is None else held.free_in,
                    hint=f"galleria runs show {run.id} --watch",
                )
            never = current.state is RunState.CANCELLED and current.token == 0
            if current.state is RunState.SUCCEEDED or never:
                raise Conflict(f"the run {run.id} has ended: {current.state.value}")
            mine = replace(
                current,
                state=RunState.RUNNING,
                token=token,
                host=self._host.name,
                boot_id=self._host.boot_id,
                pid=self._host.pid,
                log=str(log.path),
                cancelling=False,
                finished=None,
                error=None,
            )
            mine = leased(mine, catalog, self._terms)
            changes.put_run(mine)
        log.write(f"run {run.id} goes on: {run.kind.value} {run.object}")
        return OwnRun(mine, self._catalog, self._host, log, self._terms, keep)

    @contextmanager
    def _ended(self, own: OwnRun) -> Iterator[None]:
        self.work_on(own)
        try:
            yield
        except BaseException as error:
            self.work_on(None)
            ended = own.refused or own.found_lost() or error
            stopped = isinstance(ended, RunCancelled) or not isinstance(ended, Exception)
            own.log.write(f"{type(ended).__name__}: {ended}")
            with suppress(GalleriaError, OSError):  # the first error counts
                own.end(RunState.CANCELLED if stopped else RunState.FAILED, told(ended))
            if ended is not error:
                raise ended from error
            raise
        self.work_on(None)
        own.log.write("done")
        own.end(RunState.SUCCEEDED)

    def work_on(self, own: OwnRun | None) -> None:
        """What is changed from now on is changed by this run, or outside of any."""
        self._current = own
        self._catalog.guard = None if own is None else own.guard

    def begin(
        self,
        id: str,
        kind: RunKind,
        object: str,
        request: Mapping[str, Any],
        digest: str,
        keep: Callable[[], None],
    ) -> OwnRun:
        """Record a run that this process attends."""
        log = self._host.log(id)
        with self._catalog.unguarded() as (catalog, changes):
            run = Run(
                id,
                kind,
                object,
                started=catalog.now(),
                request=request,
                digest=digest,
                actor=self._identity.actor.name,
                principal=self._identity.principal or "",
                host=self._host.name,
                boot_id=self._host.boot_id,
                pid=self._host.pid,
                log=str(log.path),
            )
            run = leased(run, catalog, self._terms)
            changes.put_run(run)
        log.write(f"run {id}: {kind.value} {object}")
        return OwnRun(run, self._catalog, self._host, log, self._terms, keep)

    # --- the lease, for those who change zones ---------------------------------------------------

    @property
    def tag(self) -> str:
        if self._current is None:
            return ""
        return f"{self._current.record.id}:{self._current.record.token}"

    def check(self) -> None:
        if self._current is not None:
            self._current.check()

    def lost(self, tag: str) -> bool:
        id, _, token = tag.partition(":")
        with self._catalog.read() as catalog:
            run = catalog.run(id)
        return run is None or run.ended or str(run.token) != token

    # --- what runs hold -------------------------------------------------------------------------

    def holder(self, catalog: CatalogReader, owner: str | None) -> Held | None:
        """The run of another process that has what belongs to the run `owner`; None when that is
        free to be taken.

        It is held while the lease lasts. Of a process that has certainly ended nothing is; one that
        is not to be seen, as it has ended or lost its connection, keeps what it holds until it
        should have been heard of twice.
        """
        if owner is None or self.owns(owner):
            return None
        run, now = catalog.run(owner), catalog.now()
        if run is None or run.ended or run.lease is None or run.lease <= now:
            return None
        if run.state is RunState.WAITING:
            return Held(run)
        presence = catalog.presence(attendance(run.id, run.token))
        if presence is Presence.GONE:
            return None
        if presence is Presence.THERE or run.heartbeat is None:
            return Held(run)
        silent = now - run.heartbeat
        patience = timedelta(seconds=SILENT_BEATS * self._terms.beat)
        return None if silent > patience else Held(run, (patience - silent).total_seconds())

    def owns(self, owner: str | None) -> bool:
        """Whether the run `owner` is the one that this process is in."""
        return self._current is not None and owner == self._current.record.id

    def take(self, catalog: CatalogReader, changes: Changes, owner: str | None) -> None:
        """What belongs to the run `owner` is this one's from now on: that one ends, in the same
        transaction, and changes nothing any more."""
        run = None if owner is None or self.owns(owner) else catalog.run(owner)
        if run is None or run.ended:
            return
        message = f"the run {self.id} on {self._host.name} took its work over"
        if run.heartbeat is not None:
            message += f": it was last heard of at {run.heartbeat:%Y-%m-%d %H:%M:%S}Z"
        error = RunError(LeaseLost.code, message)
        ended = replace(run, state=RunState.FAILED, finished=catalog.now(), lease=None, error=error)
        changes.put_run(ended)


def _dead(run: Run, catalog: CatalogReader) -> bool:
    if run.state is not RunState.RUNNING or run.lease is None or run.kept:
        return False
    if catalog.presence(attendance(run.id, run.token)) is Presence.GONE:
        return True
    return run.lease < catalog.now() - SILENT_FOR_GOOD


def _old(run: Run, now: datetime) -> bool:
    return run.ended and (run.finished or run.started) < now - KEPT


def attendance(run: str, token: int) -> str:
    """What a process that works on a run attends: who had it before does not stand for it."""
    return f"{run}:{token}"


def leased(run: Run, catalog: CatalogReader, terms: RunTerms) -> Run:
    """The run with a lease that begins now."""
    now = catalog.now()
    return replace(run, heartbeat=now, lease=now + timedelta(seconds=terms.lease))


def lost(run: Run, current: Run | None) -> LeaseLost:
    """Why a run is not this process's any more."""
    if current is not None and current.token == run.token and current.error is not None:
        how = current.error.message
    else:
        how = "another process has taken it over"
    return LeaseLost(
        f"the run {run.id} is not this process's any more: {how}",
        hint=f"what it did since then does not count: galleria runs show {run.id}",
    )


def told(error: BaseException) -> RunError:
    """An error as a run's record has it."""
    if isinstance(error, GalleriaError):
        return RunError(error.reason, error.plain, error.hint)
    if isinstance(error, Exception):
        return RunError(GalleriaError.code, f"{type(error).__name__}: {error}")
    return RunError("Interrupted", "the process was told to end")


_: type[Lease] = JobRuns
