"""CPU time of this process and of what it started.

bubblewrap does not wait for what runs in it, so the kernel does not add its time to its parent's:
who can, tells it here. That is the appliances; of qemu-img and qemu-nbd in the sandbox nobody can.
"""

import threading

from pipeline.jobs.timing import process_cpu

_lock = threading.Lock()
_told = 0.0


def tell(seconds: float) -> None:
    """CPU seconds of something that ran in the sandbox."""
    global _told
    with _lock:
        _told += seconds


def cpu_seconds() -> float:
    return process_cpu() + _told
