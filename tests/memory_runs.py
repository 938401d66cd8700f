"""The in-memory double of runs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.model.runs import Presence, Run


@dataclass
class RunRecords:
    run_map: dict[str, Run] = field(default_factory=dict)
    attending: set[str] = field(default_factory=set)


class RunView:
    _runs: RunRecords

    def now(self) -> datetime:
        return datetime.now(UTC)

    def presence(self, id: str) -> Presence:
        return Presence.THERE if id in self._runs.attending else Presence.GONE

    def run(self, id: str) -> Run | None:
        return self._runs.run_map.get(id)

    def runs(self, *, ended: bool = False) -> list[Run]:
        found = [run for run in self._runs.run_map.values() if ended or not run.ended]
        return sorted(found, key=lambda run: run.started, reverse=True)

    def put_run(self, run: Run) -> None:
        self._runs.run_map[run.id] = run

    def delete_run(self, id: str) -> None:
        self._runs.run_map.pop(id, None)
