"""The Hive port over libguestfs's hivex calls; the hive is parsed in the appliance, never here.

hivex (1.3) can't remove a single value, and would keep the data of a replaced one in the file. So a
value is removed by hand: hivex says where its record lies (its handles are offsets in the file,
hivex(3)), it is taken out of its key's list, and its cells are emptied and given back.

Layout: github.com/msuhanov/regf, "Key node", "Key value".
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapters.guestfs.process import CallFailed, Helper, printable
from pipeline.errors import Refused, StageFailed
from pipeline.ports.hives import Hive, RegistryValue

BASE = 0x1000  # of offsets in a hive
CELL = struct.Struct("<i")  # a cell's length, negative while it is in use
VALUES = struct.Struct("<II")  # in a key node: number of values, offset of their list
VALUES_AT = 40  # from the start of its cell
DATA = struct.Struct("<II")  # in a value: length, offset of its data
DATA_AT = 8
INLINE = 0x80000000  # data of at most 4 bytes lies in the field of the offset
LARGEST = 16_344  # bytes; longer data is split over several cells
LIST_LIMIT = 16_384  # values of one key (Microsoft, "Registry element size limits")


@contextlib.contextmanager
def opened(helper: Helper, path: str, *, writable: bool) -> Iterator["GuestfsHive"]:
    """`path` is real. The appliance has one hive open at a time."""
    with _handle(helper, path, writable=writable):
        hive = GuestfsHive(helper, path)
        yield hive
        if hive.changed:
            if not writable:
                raise StageFailed(f"{printable(path)} was opened to be read, and was changed")
            helper.call("hivex_commit", None)
    if hive.deleted:
        _remove(helper, path, hive.deleted)


@contextlib.contextmanager
def _handle(helper: Helper, path: str, *, writable: bool) -> Iterator[None]:
    try:
        helper.call("hivex_open", path, write=writable)
    except CallFailed as error:
        raise Refused(
            f"the registry hive {printable(path)} cannot be read: {error.message}",
            hint="it is damaged: start the guest and let Windows repair it",
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(StageFailed):  # the appliance may be what has failed
            helper.call("hivex_close")


class GuestfsHive:
    """An open hive. `changed` and `deleted` say what there is to write."""

    def __init__(self, helper: Helper, path: str) -> None:
        self._call = helper.call
        self._path = path
        self._nodes: dict[str, int] = {}
        self.changed = False
        self.deleted: list[tuple[str, str]] = []

    def has(self, key: str) -> bool:
        return bool(self._node(key))

    def keys(self, key: str) -> list[str]:
        node = self._node(key)
        if not node:
            return []
        children = self._call("hivex_node_children", node)
        return [str(self._call("hivex_node_name", item["hivex_node_h"])) for item in children]

    def values(self, key: str) -> list[str]:
        node = self._node(key)
        if not node:
            return []
        handles = [item["hivex_value_h"] for item in self._call("hivex_node_values", node)]
        names = [str(self._call("hivex_value_key", handle)) for handle in handles]
        return [name for name in names if not self._is_deleted(key, name)]

    def get(self, key: str, name: str) -> RegistryValue | None:
        node = self._node(key)
        if not node or self._is_deleted(key, name):
            return None
        handle = self._call("hivex_node_get_value", node, name)
        if not handle:
            return None
        kind = int(self._call("hivex_value_type", handle))
        return RegistryValue(kind, bytes(self._call("hivex_value_value", handle)))

    def set(self, key: str, name: str, value: RegistryValue) -> None:
        node, path = self._node(""), ""
        for part in key.split("\\"):
            path = f"{path}\\{part}" if path else part
            child = self._node(path)
            if not child:
                child = self._nodes[path.lower()] = self._call("hivex_node_add_child", node, part)
            node = child
        self._call("hivex_node_set_value", node, name, value.kind, value.data)
        self.deleted = [item for item in self.deleted if item != (key.lower(), name.lower())]
        self.changed = True

    def delete(self, key: str, name: str) -> None:
        if self.get(key, name) is not None:
            self.deleted.append((key.lower(), name.lower()))

    def _is_deleted(self, key: str, name: str) -> bool:
        return (key.lower(), name.lower()) in self.deleted

    def _node(self, key: str) -> int:
        """The handle of a key; 0 when it is absent."""
        found = self._nodes.get(key.lower())
        if found is None:
            if not key:
                found = self._call("hivex_root")
            else:
                parent, _, name = key.rpartition("\\")
                above = self._node(parent)
                found = self._call("hivex_node_get_child", above, name) if above else 0
            if found:
                self._nodes[key.lower()] = found
        return int(found)


def _remove(helper: Helper, path: str, deleted: list[tuple[str, str]]) -> None:
    """Take values out of a hive that nobody has open."""
    places = []
    with _handle(helper, path, writable=False):
        for key, name in deleted:
            node = GuestfsHive(helper, path)._node(key)
            places.append((node, helper.call("hivex_node_get_value", node, name)))
    file = _File(helper, path)
    for node, value in places:
        _unlink(file, node, value)
        length, offset = DATA.unpack(file.read(value + DATA_AT, DATA.size))
        if not length & INLINE:
            if length > LARGEST:
                raise StageFailed(f"a value of {length} bytes in {printable(path)} is too long")
            file.free(BASE + offset)
        file.free(value)


def _unlink(file: "_File", node: int, value: int) -> None:
    """Take a value out of the list of its key: the last one gets its place."""
    count, where = VALUES.unpack(file.read(node + VALUES_AT, VALUES.size))
    if not 0 < count <= LIST_LIMIT:
        raise StageFailed(f"a key of {printable(file.path)} says that it has {count} values")
    start = BASE + where + CELL.size
    listed = list(struct.unpack(f"<{count}I", file.read(start, 4 * count)))
    at = listed.index(value - BASE)
    listed[at] = listed[-1]
    listed[-1] = 0
    file.write(start, struct.pack(f"<{count}I", *listed))
    if count == 1:
        file.free(BASE + where)
        where = 0xFFFFFFFF
    file.write(node + VALUES_AT, VALUES.pack(count - 1, where))


class _File:
    """Bytes of a file in the guest, at offsets."""

    def __init__(self, helper: Helper, path: str) -> None:
        self._call = helper.call
        self.path = path

    def read(self, offset: int, length: int) -> bytes:
        content = bytes(self._call("pread", self.path, length, offset))
        if len(content) != length:
            raise StageFailed(f"{printable(self.path)} ends in the middle of a record")
        return content

    def write(self, offset: int, content: bytes) -> None:
        if self._call("pwrite", self.path, content, offset) != len(content):
            raise StageFailed(f"{printable(self.path)} could not be written")

    def free(self, offset: int) -> None:
        """Empty a cell and give it back."""
        (length,) = CELL.unpack(self.read(offset, CELL.size))
        if not -(LARGEST + 8) <= length < 0:
            raise StageFailed(f"a cell of {printable(self.path)} has a length of {-length}")
        self.write(offset, CELL.pack(-length) + bytes(-length - CELL.size))


if TYPE_CHECKING:
    _: type[Hive] = GuestfsHive
