"""CPU time of this process and of what it started.

bubblewrap does not wait for what runs in it, so the kernel does not add its time to its parent's:
who can, tells it here. That is the appliances; of qemu-img and qemu-nbd in the sandbox nobody can.
"""

import resource
import threading

_lock = threading.Lock()
_told = 0.0


def tell(seconds: float) -> None:
    """CPU seconds of something that ran in the sandbox."""
    global _told
    with _lock:
        _told += seconds


def cpu_seconds() -> float:
    """CPU seconds of this process, of the children that it has waited for, and what was told."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) + _told
