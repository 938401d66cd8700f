"""Which Windows guests may become a generalized image."""

from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.errors import Refused
from pipeline.guest.operations import Operation
from pipeline.guest.windows import unattend
from pipeline.guest.windows.classify import Classification, Verdict

SYSPREP = (
    "run `sysprep /generalize /oobe /shutdown` in the guest, or let it do so by itself: "
    "galleria generalize FILE --arm-sysprep --out FILE. A specialized definition takes it as it is"
)
INSTEAD = {
    Verdict.SPECIALIZED: SYSPREP,
    Verdict.HALF_WAY: "Sysprep began and did not end: its log says why (setuperr.log in "
    "Windows\\System32\\Sysprep\\Panther). Go back to the disk as it was before",
    Verdict.UNKNOWN: f"galleria inspect shows the evidence. If in doubt, {SYSPREP}",
}


def admit(found: Classification, *, force: bool) -> None:
    """Raises Refused unless the guest was generalized by Sysprep and can be written safely.
    `force` lets pass what loses nothing: another state, a domain member, pending operations."""
    for obstacle in found.obstacles:
        if obstacle.unsafe or not force:
            more = "" if obstacle.unsafe else "; or --force, which the version records"
            raise Refused(
                f"the Windows guest cannot be generalized: {obstacle.what}",
                hint=obstacle.hint + more,
            )
    if found.verdict is not Verdict.GENERALIZED and not force:
        strong = "; ".join(str(clue) for clue in found.clues if clue.decides) or "no evidence"
        raise Refused(
            f"the Windows guest is not generalized but {found.verdict.value}, and only Sysprep, in "
            f"the running guest, can change that: {strong}",
            hint=f"{INSTEAD[found.verdict]}; or --force, which the version records",
        )


def warnings(found: Classification, operations: Iterable[Operation]) -> Iterator[str]:
    """What a person should know of a guest that was admitted."""
    if found.verdict is not Verdict.GENERALIZED:
        yield f"--force: the Windows guest is taken although it is {found.verdict.value}"
    for obstacle in found.obstacles:
        yield f"--force: {obstacle.what}"
    if unattend.OPERATION not in {operation.name for operation in operations}:
        for secret in found.secrets:
            yield f"{secret} holds a password; --enable {unattend.OPERATION} removes it"


def document(found: Classification, *, force: bool) -> dict[str, Any]:
    """The classification for a report. `forced`: it was taken although it should not be."""
    should_not = found.verdict is not Verdict.GENERALIZED or bool(found.obstacles)
    return {
        "verdict": found.verdict.value,
        "forced": force and should_not,
        "evidence": [
            {
                "where": clue.where,
                "value": clue.value,
                "says": clue.says.value if clue.says else None,
                "weight": clue.weight.value,
            }
            for clue in found.clues
        ],
        "obstacles": [
            {"name": item.name, "where": item.where, "what": item.what} for item in found.obstacles
        ],
        "secrets": list(found.secrets),
    }
