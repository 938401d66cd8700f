"""Tries every way out of the sandbox that galleria knows of, and tells what became of each.

    escape.py [PID PORT NAME]      of the host: a process, a TCP port, an abstract socket

Stands alone: it is run in the sandbox by the distribution's Python, by `galleria doctor` and by the
tests. One JSON object: {"shut": {name: error}, "open": [name], "user": [uid, capabilities], ...}.
Nothing that it tries changes anything when it succeeds.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
import termios
from collections.abc import Callable

NEWUSER, NEWNS = 0x10000000, 0x00020000  # linux/sched.h
VSOCK, ALG = 40, 38  # sys/socket.h
# x86-64, 64-bit Arm
NUMBERS = {
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone": (56, 220),
    "clone3": (435, 435),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "ptrace": (101, 117),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "pivot_root": (155, 41),
    "fsopen": (430, 430),
    "open_by_handle_at": (304, 265),
    "process_vm_readv": (310, 270),
    "syslog": (103, 116),
    "capget": (125, 90),
}
MACHINES = {"x86_64": 0, "aarch64": 1}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call by its number; raises OSError."""
    number = NUMBERS[name][MACHINES[platform.machine()]]
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in args]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def new_process(flags: int) -> None:
    """A process in a new namespace, by the older call."""
    if call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)
    os.wait()


def newer_process() -> None:
    # linux/sched.h, struct clone_args: flags first, the signal at the end fifth
    arguments = struct.pack("=QQQQQQQQ", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    if call("clone3", arguments, len(arguments)) == 0:
        os._exit(0)
    os.wait()


def opened(path: str, flags: int) -> None:
    os.close(os.open(path, flags))


def connect(family: int, address: tuple[str, int] | str) -> None:
    with socket.socket(family) as made:
        made.settimeout(2)
        made.connect(address)


def interfaces() -> None:
    if not {name for _, name in socket.if_nameindex()} - {"lo"}:
        raise OSError(errno.ENODEV, "only lo")


def device() -> None:
    os.mknod("/tmp/device", stat.S_IFBLK | 0o600, os.makedev(7, 0))  # noqa: S108 - its own
    os.unlink("/tmp/device")  # noqa: PTH108, S108


def typing() -> None:
    """A letter into the terminal that galleria was started from; of none, the filter answers."""
    fcntl.ioctl(0, termios.TIOCSTI, b" ")


def written(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)  # noqa: PTH108


def ways(pid: int, port: int, name: str) -> dict[str, Callable[[], object]]:
    """By what they would be."""
    tried: dict[str, Callable[[], object]] = {
        "set core_pattern": lambda: opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
        "set sysrq-trigger": lambda: opened("/proc/sysrq-trigger", os.O_WRONLY),
        "read mountinfo": lambda: opened("/proc/self/mountinfo", os.O_RDONLY),
        "read the kernel's memory": lambda: opened("/proc/kcore", os.O_RDONLY),
        "read the kernel's messages": lambda: call("syslog", 10, None, 0),
        "read /etc/passwd": lambda: opened("/etc/passwd", os.O_RDONLY),
        "read /root": lambda: os.listdir("/root"),  # noqa: PTH208
        "read /sys": lambda: os.listdir("/sys"),  # noqa: PTH208
        "write to /usr": lambda: written("/usr/galleria"),
        "mount": lambda: call("mount", b"proc", b"/tmp", b"proc", 0, None),
        "mount by descriptors": lambda: call("fsopen", b"proc", 0),
        "pivot_root": lambda: call("pivot_root", b"/tmp", b"/tmp"),
        "unshare users": lambda: call("unshare", NEWUSER),
        "unshare mounts": lambda: call("unshare", NEWNS),
        "clone with users": lambda: new_process(NEWUSER),
        "clone3 with users": newer_process,
        "setns": lambda: call("setns", 0, 0),
        "keyctl": lambda: call("keyctl", 0, -4, 1),
        "add_key": lambda: call("add_key", b"user", b"galleria", b"x", 1, -2),
        "ptrace": lambda: call("ptrace", 0, 0, None, None),
        "process_vm_readv": lambda: call("process_vm_readv", os.getpid(), None, 0, None, 0, 0),
        "io_uring": lambda: os.close(call("io_uring_setup", 1, bytes(120))),
        "bpf": lambda: os.close(call("bpf", 0, (2).to_bytes(4, "little") + b"\4\0\0\0" * 4, 72)),
        "userfaultfd": lambda: os.close(call("userfaultfd", 1)),
        "perf_event_open": lambda: call("perf_event_open", bytes(128), 0, -1, -1, 0),
        "load a module": lambda: call("init_module", b"", 0, b""),
        "kexec": lambda: call("kexec_load", 0, 0, None, 0),
        "open by handle": lambda: call("open_by_handle_at", -100, bytes(8), 0),
        "make a device": device,
        "open a disk": lambda: opened("/dev/vda", os.O_RDONLY),
        "become root": lambda: os.setresuid(0, 0, 0),
        "take groups": lambda: os.setgroups([0]),
        "raise limits": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
        "network interfaces": interfaces,
        "VSOCK": lambda: socket.socket(VSOCK, socket.SOCK_STREAM).close(),
        "ALG": lambda: socket.socket(ALG, socket.SOCK_SEQPACKET).close(),
        "type into the terminal": typing,
    }
    if pid:
        tried["signal a process of the host"] = lambda: os.kill(pid, 0)
        tried["connect to the host"] = lambda: connect(socket.AF_INET, ("127.0.0.1", port))
        tried["an abstract socket"] = lambda: connect(socket.AF_UNIX, f"\0{name}")
    return tried


def capabilities() -> int:
    """What this process may do beyond a user's rights (capget(2))."""
    data = ctypes.create_string_buffer(24)
    call("capget", (0x20080522).to_bytes(4, "little") + bytes(4), data)
    return int.from_bytes(data.raw[:4], "little") | int.from_bytes(data.raw[12:16], "little") << 32


def main() -> None:
    pid, port, name = sys.argv[1:4] if len(sys.argv) == 4 else ("0", "0", "")
    shut: dict[str, str] = {}
    broken: list[str] = []
    for way, attempt in ways(int(pid), int(port), name).items():
        try:
            attempt()
            broken.append(way)
        except OSError as error:
            shut[way] = errno.errorcode.get(error.errno or 0, type(error).__name__)
        except ValueError as error:  # setrlimit, above what it may
            shut[way] = type(error).__name__
    print(json.dumps({"shut": shut, "open": broken, "user": [os.getuid(), capabilities()]}))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
