"""What galleria's helper uses of libguestfs's Python bindings (they are not on PyPI, and carry no
types): https://libguestfs.org/guestfs-python.3.html"""

from collections.abc import Callable
from typing import Any

EVENT_APPLIANCE: int
EVENT_LIBRARY: int
EVENT_WARNING: int

class GuestFS:
    def __init__(self, python_return_dict: bool = ..., close_on_exit: bool = ...) -> None: ...
    def set_event_callback(
        self, callback: Callable[[int, int, str, list[int]], None], event_bitmask: int
    ) -> int: ...
    def __getattr__(self, name: str) -> Callable[..., Any]: ...
