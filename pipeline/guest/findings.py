"""What a validation says."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.data.text import printable


class Severity(Enum):
    """What it means when a check does not hold: Azure refuses the disk or the VM does not work;
    it works less well or may not; or it is only told."""

    FAIL = "fail"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `holds` None: nothing here could tell, `found` says why. `fix` is what to do."""

    check: str
    severity: Severity
    holds: bool | None
    found: str
    fix: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "result": self.result,
            "check": self.check,
            "severity": self.severity.value,
            "holds": self.holds,
            "found": self.found,
            "fix": self.fix,
        }

    @property
    def result(self) -> str:
        """ "ok", "unknown", or the severity of what does not hold."""
        if self.holds is None:
            return "unknown"
        return "ok" if self.holds else self.severity.value


def failed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those for which the disk must not be uploaded."""
    return tuple(item for item in findings if item.result == Severity.FAIL.value)


def verdict(
    check: str, severity: Severity, problems: Iterable[str], fix: str, fine: str = "nothing"
) -> Finding:
    """A check that holds when it found no problems; they may quote the guest."""
    found = tuple(printable(problem) for problem in problems)
    return Finding(check, severity, not found, "; ".join(found) or fine, fix if found else "")


def no_findings() -> tuple[Finding, ...]:
    """Of a guest that can't be looked into."""
    said = "the guest could not be looked into"
    return (Finding("guest", Severity.FAIL, None, said),)
