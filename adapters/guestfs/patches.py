"""Many small changes of one device, in few scripts.

libguestfs waits for udev after every pread_device and pwrite_device: 60 and 150 ms under software
emulation, so that dating a hundred inodes took 14 s. Here whole blocks are fetched and written back
by dd, some dozens a script.
"""

import base64
import gzip
from collections.abc import Iterable, Iterator

from adapters.guestfs.process import Helper
from adapters.guestfs.shell import ZERO_SECONDS, quote, run_script, zeroing
from pipeline.ports.extents import Range

BLOCK = 1024  # the smallest block of ext: none of its blocks ends behind the device
WINDOW = 256 << 10
PART = 2 << 20  # the most that one call gives
MESSAGE = 90_000  # characters of packed blocks in a script; Linux ends one argument at 128 KiB
BATCH = 256  # blocks of one script
PATCH = "/tmp/galleria.patch"  # noqa: S108 - in the appliance


class Patches:
    """Blocks of an unmounted device, changed in memory until `flush`."""

    def __init__(self, helper: Helper, node: str) -> None:
        self._helper = helper
        self._node = quote(node)
        self._blocks: dict[int, bytearray] = {}
        self._dirty: set[int] = set()

    def fetch(self, ranges: Iterable[Range]) -> None:
        """Get ready what will be asked for; what is not is fetched when it is, with its
        neighbours."""
        wanted = {
            number
            for found in ranges
            for number in range(found.start // BLOCK, -(-found.end // BLOCK))
        }
        wanted -= self._blocks.keys()
        runs = list(_runs(wanted))
        if not runs:
            return
        words = " ".join(f"{first}:{count}" for first, count in runs)
        content = run_script(
            self._helper,
            f"for run in {words}; do dd if={self._node} bs={BLOCK} skip=${{run%:*}} "
            "count=${run#*:} 2>/dev/null; done",
        )
        numbers = (first + index for first, count in runs for index in range(count))
        for at, number in enumerate(numbers):
            self._blocks[number] = bytearray(content[at * BLOCK : (at + 1) * BLOCK])

    def load(self, device: str, ranges: Iterable[Range]) -> None:
        """As `fetch`, of what lies together: in long pieces, by libguestfs's name of the device."""
        places = {
            start // PART * PART
            for found in ranges
            for start in (*range(found.start, found.end, PART), found.end - 1)
        }
        for start in sorted(places):
            content = self._helper.call("pread_device", device, PART, start)
            for at in range(0, len(content) - BLOCK + 1, BLOCK):
                block = bytearray(content[at : at + BLOCK])
                self._blocks.setdefault((start + at) // BLOCK, block)

    def read(self, offset: int, length: int) -> bytes:
        first = offset // BLOCK
        wanted = range(first, -(-(offset + length) // BLOCK))
        if not self._blocks.keys() >= set(wanted):
            start = offset // WINDOW * WINDOW
            self.fetch([Range(start, -(-(offset + length - start) // WINDOW) * WINDOW)])
        whole = b"".join(bytes(self._blocks[number]) for number in wanted)
        return whole[offset - first * BLOCK :][:length]

    def write(self, offset: int, content: bytes) -> None:
        self.fetch([Range(offset, len(content))])
        for index, byte_at in enumerate(range(offset, offset + len(content))):
            number, within = divmod(byte_at, BLOCK)
            self._blocks[number][within] = content[index]
            self._dirty.add(number)

    def zero(self, area: Range) -> None:
        """At once: what is asked for afterwards is fetched again."""
        self.flush()
        run_script(self._helper, f"set -e; {zeroing(area, self._node)}\nsync", timeout=ZERO_SECONDS)
        for number in range(area.start // BLOCK, -(-area.end // BLOCK)):
            self._blocks.pop(number, None)

    def flush(self) -> None:
        pending = sorted(self._dirty)
        size = BATCH
        while pending:
            batch = pending[:size]
            packed = base64.b64encode(
                gzip.compress(b"".join(self._blocks[number] for number in batch))
            ).decode()
            if len(packed) > MESSAGE:
                size //= 2  # 64 blocks fit whatever is in them
                continue
            self._write_out(batch, packed)
            pending = pending[len(batch) :]
        self._dirty.clear()

    def _write_out(self, batch: list[int], packed: str) -> None:
        words, at = [], 0
        for first, count in _runs(batch):
            words.append(f"{first}:{count}:{at}")
            at += count
        run_script(
            self._helper,
            f"echo {packed} | base64 -d | gzip -d > {PATCH} && for run in {' '.join(words)}; do "
            "IFS=: read first count at <<< $run; "
            f"dd if={PATCH} of={self._node} bs={BLOCK} skip=$at seek=$first count=$count "
            "conv=notrunc 2>/dev/null || exit 1; done; sync",
        )


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Neighbours together: (first, count)."""
    first = last = -2
    for number in sorted(numbers):
        if number != last + 1:
            if last >= first >= 0:
                yield first, last - first + 1
            first = number
        last = number
    if first >= 0:
        yield first, last - first + 1
