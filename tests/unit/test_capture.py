"""What a capture asks of QEMU."""

from typing import Any, cast

import pytest

from adapters.qmp import jobs
from adapters.qmp.client import Monitor
from adapters.qmp.state import CaptureState, DiskState, Phase
from pipeline.ports.machines import MachineDisk

ONE, TWO = "1" * 32, "2" * 32


class Recorded:
    """A QEMU whose blockdev-backup has these arguments; it does what it is told."""

    def __init__(self, *members: str) -> None:
        self.members = members
        self.actions: list[dict[str, Any]] = []

    def execute(self, command: str, **arguments: Any) -> Any:
        if command == "query-qmp-schema":
            return [
                {"name": "quit", "meta-type": "command", "arg-type": "0"},
                {"name": "blockdev-backup", "meta-type": "command", "arg-type": "73"},
                {
                    "name": "73",
                    "meta-type": "object",
                    "members": [{"name": m} for m in self.members],
                },
            ]
        assert command == "transaction"
        self.actions = arguments["actions"]
        return {}


@pytest.mark.parametrize(
    ("members", "choice"),
    [(("device", "target"), None), (("device", "on-cbw-error"), "break-snapshot")],
)
def test_the_guests_write_wins_where_qemu_can_choose(
    members: tuple[str, ...], choice: str | None
) -> None:
    monitor = Recorded(*members)
    disks = [MachineDisk(name, lun, 9, 9, "qcow2", True) for name, lun in (("a", None), ("b", 0))]
    first = DiskState("a", "n1", None, 9, "qcow2", ONE, True)
    second = DiskState("b", "n2", 0, 9, "raw", None, False)
    state = CaptureState(TWO, "/s", "", Phase.BEGUN, (first, second))
    jobs.transaction(cast(Monitor, monitor), state, disks, None)
    kinds = [action["type"] for action in monitor.actions]
    assert kinds == ["block-dirty-bitmap-add", "blockdev-backup", "blockdev-backup"]
    one, two = (action["data"] for action in monitor.actions[1:])
    assert [item.get("on-cbw-error") for item in (one, two)] == [choice, choice]
    assert (one["sync"], one["bitmap"]) == ("bitmap", f"galleria-{ONE}")
    assert two["sync"] == "full"
