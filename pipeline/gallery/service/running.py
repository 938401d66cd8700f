"""The runs of this process: opened, kept alive, ended; and why one that was overtaken does no harm.

**Who owns a run.** Whoever has its token. A thread of the process that works on it prolongs its
lease, by the catalog's clock, so that the clocks of hosts do not matter. A process that ended or
hangs prolongs nothing: when the lease is over, whoever wants what the run holds may take it over.

**What an overtaken process can still do.** It may be stopped at any instruction, and go on hours
later. In the catalog each transaction of a run looks first whether the run's token still counts;
writers are alone there, so that nothing comes in between. A lease that ran out and that nobody took
is still the owner's: it is prolonged as if nothing had been.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from pipeline.errors import GalleriaError, LeaseLost, RunCancelled
from pipeline.gallery.audited import AuditedCatalog
from pipeline.model.access import Identity
from pipeline.model.runs import Run, RunError, RunKind, RunState
from pipeline.ports.catalog import CatalogReader
from pipeline.ports.runs import RunHost, RunLog

BEATS = 6  # how often a lease is prolonged while it lasts


@dataclass(frozen=True, slots=True)
class RunTerms:
    """`lease` is how long a run that is not heard of keeps what it holds, in seconds."""

    lease: float = 30.0


class OwnRun:
    """A run that this process works on. What its step and its bytes are is told by the job, from
    any thread, and recorded with the next beat."""

    def __init__(
        self, record: Run, catalog: AuditedCatalog, host: RunHost, log: RunLog, terms: RunTerms
    ) -> None:
        self.record = record
        self.log = log
        self.step = ""
        self.done = self.total = 0
        self._catalog = catalog
        self._host = host
        self._terms = terms
        self._refused: GalleriaError | None = None

    def tell(self, step: str, total: int = 0) -> None:
        """What the job does now."""
        self.step, self.done, self.total = step, 0, total

    def beat(self) -> None:
        """Prolong the lease, and record how far the job is. When the run is not this process's any
        more, or is to end, the job is interrupted."""
        try:
            self._prolong()
        except (LeaseLost, RunCancelled) as error:
            if self._refused is None:
                self._refused = error
                self._host.interrupt()
        except (GalleriaError, OSError):
            return  # the catalog is away: the next beat finds it again

    def guard(self, catalog: CatalogReader) -> None:
        """Raise when the run is not this process's any more, or is to end."""
        current = catalog.run(self.record.id)
        if current is None or current.token != self.record.token or current.ended:
            raise lost(self.record, current)
        if current.cancelling:
            raise cancelled(current)

    def check(self) -> None:
        """Raise as `guard`; a lease that ran out is prolonged. Call it before what can't be undone
        is done outside of the catalog."""
        with self._catalog.read() as catalog:
            self.guard(catalog)
            current, now = catalog.run(self.record.id), catalog.now()
        if current is None or current.lease is None or current.lease <= now:
            self._prolong()

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

    def _told(self, run: Run) -> Run:
        return replace(run, step=self.step, done=self.done, total=self.total)


class JobRuns:
    """Opens runs for one identity. One job inside another is a part of that one's run."""

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
        own = self._begin(kind, object, request or {}, digest)
        with self._host.every(self._terms.lease / BEATS, own.beat), self._kept(own):
            yield own

    @contextmanager
    def _kept(self, own: OwnRun) -> Iterator[None]:
        self._current, self._catalog.guard = own, own.guard
        try:
            yield
        except BaseException as error:
            self._let_go()
            ended = own.refused or error
            stopped = isinstance(ended, RunCancelled) or not isinstance(ended, Exception)
            own.log.write(f"{type(ended).__name__}: {ended}")
            with suppress(GalleriaError, OSError):  # the first error counts
                own.end(RunState.CANCELLED if stopped else RunState.FAILED, told(ended))
            if own.refused is not None and own.refused is not error:
                raise own.refused from error
            raise
        self._let_go()
        own.log.write("done")
        own.end(RunState.SUCCEEDED)

    def _let_go(self) -> None:
        self._current, self._catalog.guard = None, None

    def _begin(self, kind: RunKind, object: str, request: Mapping[str, Any], digest: str) -> OwnRun:
        id = uuid.uuid4().hex[:12]
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
        return OwnRun(run, self._catalog, self._host, log, self._terms)


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


def cancelled(run: Run) -> RunCancelled:
    return RunCancelled(f"the run {run.id} was cancelled")


def told(error: BaseException) -> RunError:
    """An error as a run's record has it."""
    if isinstance(error, GalleriaError):
        return RunError(error.reason, error.plain, error.hint)
    if isinstance(error, Exception):
        return RunError(GalleriaError.code, f"{type(error).__name__}: {error}")
    return RunError("Interrupted", "the process was told to end")
