"""The inflater: a program of its own, run in the sandbox by the distribution's Python.

    inflater.py MEMORY SLOT CODECS CHANNELS FILE...

It imports nothing of galleria. MEMORY is the descriptor of shared memory of one slot of SLOT bytes
for each of CHANNELS, the descriptors (with commas between) of connected sockets that keep the
bounds of messages. One process serves each channel: a message is a list of `JOB`s, its answer `+`
or why it failed. A job is a cluster of FILE that is inflated to a place in the channel's slot.

libdeflate and libzstd are the distribution's; libdeflate is twice as fast as zlib.
"""

import ctypes
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

# codec, file, bytes at least, bytes at most, place in the slot, compressed length, its offset
JOB = struct.Struct("<HHIIIIQ")
DEFLATE, ZLIB, ZSTD = range(3)
MESSAGE = 64 << 10

# (source, its length, target, its capacity) -> bytes that were written; raises ValueError
Inflate = Callable[[int, int, int, int], int]
SIZE, POINTER = ctypes.c_size_t, ctypes.c_void_p


def deflate(symbol: str) -> Inflate:
    library = ctypes.CDLL("libdeflate.so.0")
    library.libdeflate_alloc_decompressor.restype = POINTER
    decompress = library[symbol]
    decompress.argtypes = [POINTER, POINTER, SIZE, POINTER, SIZE, POINTER]
    state = POINTER(library.libdeflate_alloc_decompressor())
    written = SIZE()
    reasons = {1: "it is damaged", 3: "it is longer than a cluster"}

    def inflate(source: int, length: int, target: int, capacity: int) -> int:
        # what follows the end of the stream is ignored: a length in qcow2 is whole sectors
        result = decompress(state, source, length, target, capacity, ctypes.byref(written))
        if result:
            raise ValueError(reasons.get(result, f"libdeflate says {result}"))
        return written.value

    return inflate


def zstd() -> Inflate:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createDCtx.restype = POINTER
    library.ZSTD_getErrorName.argtypes, library.ZSTD_getErrorName.restype = [SIZE], ctypes.c_char_p
    library.ZSTD_isError.argtypes = [SIZE]
    frame, decompress = library.ZSTD_findFrameCompressedSize, library.ZSTD_decompressDCtx
    frame.argtypes, frame.restype = [POINTER, SIZE], SIZE
    decompress.argtypes, decompress.restype = [POINTER, POINTER, SIZE, POINTER, SIZE], SIZE
    state = POINTER(library.ZSTD_createDCtx())

    def checked(result: int) -> int:
        if library.ZSTD_isError(result):
            raise ValueError(library.ZSTD_getErrorName(result).decode())
        return result

    def inflate(source: int, length: int, target: int, capacity: int) -> int:
        # one frame: what follows it in its last sector belongs to the next cluster
        length = checked(frame(source, length))
        return checked(decompress(state, target, capacity, source, length))

    return inflate


MAKERS: dict[int, Callable[[], Inflate]] = {
    DEFLATE: lambda: deflate("libdeflate_deflate_decompress"),
    ZLIB: lambda: deflate("libdeflate_zlib_decompress"),
    ZSTD: zstd,
}


class Slot:
    """One channel's part of the shared memory, and a buffer for what is compressed."""

    def __init__(self, memory: int, index: int, length: int) -> None:
        self.length = length
        self._mapping = mmap.mmap(memory, length, offset=index * length)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        self._packed = bytearray(2 * length)
        self._view = memoryview(self._packed)
        self.source = ctypes.addressof(ctypes.c_char.from_buffer(self._packed))

    def load(self, file: int, length: int, offset: int) -> None:
        if length > len(self._view) or os.preadv(file, [self._view[:length]], offset) != length:
            raise ValueError("it could not be read whole")


def perform(jobs: bytes, slot: Slot, files: Sequence[int], inflates: dict[int, Inflate]) -> str:
    """Do the jobs of one message; why the first that fails did."""
    for codec, file, least, most, place, length, offset in JOB.iter_unpack(jobs):
        try:
            if place + most > slot.length:
                raise ValueError("its place is not in the slot")
            slot.load(files[file], length, offset)
            written = inflates[codec](slot.source, length, slot.address + place, most)
            if written < least:
                raise ValueError(f"it is {written} bytes and not {least}")
        except ValueError as error:
            return f"the compressed data at byte {offset} of the file: {error}"
    return "+"


def serve(channel: socket.socket, slot: Slot, files: Sequence[int], codecs: Sequence[int]) -> None:
    inflates = {codec: MAKERS[codec]() for codec in codecs}
    while message := channel.recv(MESSAGE):
        channel.send(perform(message, slot, files, inflates).encode())


def main() -> None:
    memory, length = int(sys.argv[1]), int(sys.argv[2])
    codecs, descriptors = ([int(item) for item in text.split(",")] for text in sys.argv[3:5])
    files = [os.open(name, os.O_RDONLY) for name in sys.argv[5:]]
    channels = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for index, channel in enumerate(channels):
        if os.fork():
            continue
        for other in channels:
            if other is not channel:
                other.close()
        serve(channel, Slot(memory, index, length), files, codecs)
        os._exit(0)
    # a channel whose server has died is closed once nobody else holds it
    for channel in channels:
        channel.close()
    for _ in channels:
        os.wait()


if __name__ == "__main__":
    main()
