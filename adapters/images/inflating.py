"""Compressed clusters, inflated by processes in the sandbox: one for each thread that reads.

    a thread -> the clusters of its extent (adapters.formats.packed) -> jobs, by file and offset
             -> an inflater in the sandbox -> its slot of shared memory -> the caller's buffer

What comes out is copied by pread, which releases the GIL, and only then hashed and written:
nothing that an inflater does later changes it. galleria itself never maps the shared memory, so one
that cuts it short makes a read fail and no more.
"""

import contextlib
import os
import queue
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from adapters.filesystem import rawfile
from adapters.formats.packed import Codec, Packed, PackedLayout
from adapters.formats.window import quoted
from adapters.images import inflater
from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.data.reading import REQUEST_SIZE, THREADS
from pipeline.errors import StageFailed, UnsafeImage
from pipeline.ports import Chain, Layer
from pipeline.ports.extents import Extent

REQUEST_SECONDS = 300.0  # one message; an inflater that needs longer is gone
END_SECONDS = 5.0
ANSWER = 4096
JOBS = inflater.MESSAGE // inflater.JOB.size  # in one message
# Python, two libraries, and a slot of the largest VMDK grain (16 MiB) with what fills it
LIMITS = command.Limits(address_space=1 << 30)


@dataclass(frozen=True, slots=True)
class Channel:
    """The way to one inflater, and where its slot begins in the shared memory."""

    socket: socket.socket
    base: int


class Inflaters:
    """The compressed layers of one disk, ready to be read. Calls may come from many threads."""

    def __init__(
        self,
        layouts: Mapping[int, PackedLayout],
        channels: Sequence[Channel],
        memory: int,
        slot: int,
        stderr: IO[bytes],
    ) -> None:
        self._layouts = layouts
        self._memory = memory
        self._slot = slot
        self._stderr = stderr
        self._idle: queue.LifoQueue[Channel] = queue.LifoQueue()
        for channel in channels:
            self._idle.put(channel)

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        """Fill `buf` with an extent that lies in compressed clusters."""
        layout = self._layouts[extent.layer]
        channel = self._idle.get()
        try:
            clusters = layout.clusters(extent.start, extent.end)
            for batch in self._batches(clusters, layout.unit):
                self._inflate(channel, extent.layer, layout, batch)
                start = max(extent.start, batch[0].start)
                end = min(extent.end, batch[-1].start + batch[-1].size)
                with buf[start - extent.start : end - extent.start] as part:
                    place = channel.base + start - batch[0].start
                    rawfile.read_exactly(self._memory, part, place)
        finally:
            self._idle.put(channel)

    def _batches(self, clusters: Iterable[Packed], unit: int) -> Iterator[list[Packed]]:
        """As many clusters at a time as a slot and a message hold."""
        most = min(self._slot // unit, JOBS)
        batch: list[Packed] = []
        for cluster in clusters:
            batch.append(cluster)
            if len(batch) == most:
                yield batch
                batch = []
        if batch:
            yield batch

    def _inflate(
        self, channel: Channel, layer: int, layout: PackedLayout, batch: Sequence[Packed]
    ) -> None:
        file = sorted(self._layouts).index(layer)
        jobs = b"".join(
            inflater.JOB.pack(
                layout.codec,
                file,
                cluster.size,
                layout.unit,
                index * layout.unit,
                cluster.length,
                cluster.offset,
            )
            for index, cluster in enumerate(batch)
        )
        try:
            channel.socket.send(jobs)
            answer = channel.socket.recv(ANSWER)
        except OSError as error:
            raise StageFailed(f"an inflater does not answer ({error}): {self._tail()}") from None
        if not answer:
            raise StageFailed(f"an inflater ended: {self._tail()}")
        if answer != b"+":
            raise UnsafeImage(f"a compressed cluster can't be read: {quoted(answer, 300)}")

    def _tail(self) -> str:
        # pread: they write at the position that they share with this file
        length = os.fstat(self._stderr.fileno()).st_size
        return quoted(os.pread(self._stderr.fileno(), 1000, max(0, length - 1000)), 1000)


@contextlib.contextmanager
def inflating(
    chain: Chain, layouts: Mapping[int, PackedLayout], sandbox: Sandbox
) -> Iterator[Inflaters]:
    """Inflaters for the compressed layers of a chain (`layouts`, by layer), for the length of a
    `with`; leave it in the thread that entered it."""
    layers = [chain[layer] for layer in sorted(layouts)]
    slot = max(REQUEST_SIZE, *(layout.unit for layout in layouts.values()))
    with contextlib.ExitStack() as stack:
        memory = os.memfd_create("galleria-inflated", os.MFD_CLOEXEC)
        stack.callback(os.close, memory)
        os.ftruncate(memory, THREADS * slot)
        channels, ends = [], []
        for index in range(THREADS):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(ours.close)
            ours.settimeout(REQUEST_SECONDS)
            channels.append(Channel(ours, index * slot))
            ends.append(theirs)
        codecs = {layout.codec for layout in layouts.values()}
        argv = _argv(sandbox, memory, slot, codecs, ends, layers)
        # stderr to a file: a pipe that nobody reads would one day block them
        stderr = stack.enter_context(tempfile.TemporaryFile())
        fds = (memory, *(end.fileno() for end in ends))
        process = stack.enter_context(
            command.spawn(argv, stdout=subprocess.DEVNULL, stderr=stderr, pass_fds=fds)
        )
        for end in ends:
            end.close()
        try:
            yield Inflaters(layouts, channels, memory, slot, stderr)
        finally:
            for channel in channels:
                channel.socket.close()
            # by themselves, so that the time they took is told of; else they are killed
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)


def _argv(
    sandbox: Sandbox,
    memory: int,
    slot: int,
    codecs: Iterable[Codec],
    ends: Sequence[socket.socket],
    layers: Sequence[Layer],
) -> list[str]:
    script = Path(inflater.__file__)
    argv = ["python3", "-I", "-S", sandbox.name(script), str(memory), str(slot)]
    argv.append(",".join(str(codec.value) for codec in sorted(codecs)))
    argv.append(",".join(str(end.fileno()) for end in ends))
    argv += [sandbox.name(layer) for layer in layers]
    return sandbox.wrap(argv, read=[script, *layers], limits=LIMITS)
