"""The filter of system calls of every sandbox (seccomp(2), Documentation/userspace-api).

What nothing in a sandbox needs, and what mistakes of kernels were reached through, fails as if the
kernel forbade it (EPERM). `clone3` is not there (ENOSYS), because its flags cannot be looked at;
the C library then takes `clone`, whose flags can. Calls of another architecture end the process.
"""

import errno
import platform
import struct
from collections.abc import Iterator, Mapping

# name: numbers on x86-64 and on 64-bit Arm (asm/unistd_64.h, asm-generic/unistd.h)
FORBIDDEN: Mapping[str, tuple[int, int]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# 32-bit leftovers of x86: descriptor tables and ports
X86_ONLY = {"modify_ldt": 154, "iopl": 172, "ioperm": 173}
CLONE, CLONE3, IOCTL, SOCKET = (56, 220), (435, 435), (16, 29), (41, 198)
NEW_NAMESPACES = 0x7E020000  # linux/sched.h: CLONE_NEW*
# asm-generic/ioctls.h, linux/tiocl.h: typing into the terminal that galleria was started from
TYPING = (0x5412, 0x541C)
# sys/socket.h: UNIX, INET, INET6, NETLINK; others (VSOCK, ALG) reach past a network namespace
FAMILIES = (1, 2, 10, 16)
X32_CALLS = 0x40000000
# linux/audit.h
MACHINES: Mapping[str, tuple[int, int]] = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# linux/bpf_common.h, linux/seccomp.h
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24  # in struct seccomp_data; low halves

Step = tuple[int, int, int, int]  # code, steps to leave out if so, if not, operand


def program(machine: str | None = None) -> bytes:
    """The filter for this machine, or another; empty where galleria has no numbers for it."""
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return b""
    return b"".join(struct.pack("<HBBI", *step) for step in _steps(*known))


def _steps(column: int, architecture: int) -> Iterator[Step]:
    yield (LOAD, 0, 0, ARCHITECTURE)
    yield (EQUAL, 1, 0, architecture)
    yield (RETURN, 0, 0, KILL)
    yield (LOAD, 0, 0, NUMBER)
    numbers = [each[column] for each in FORBIDDEN.values()]
    if column == 0:
        yield from ((AT_LEAST, 0, 1, X32_CALLS), (RETURN, 0, 0, KILL))
        numbers += X86_ONLY.values()
    for number in numbers:
        yield from ((EQUAL, 0, 1, number), _fail(errno.EPERM))
    yield from ((EQUAL, 0, 1, CLONE3[column]), _fail(errno.ENOSYS))
    yield (EQUAL, 0, 3, CLONE[column])
    yield from ((LOAD, 0, 0, FIRST), (ANY_BIT, 0, 1, NEW_NAMESPACES), _fail(errno.EPERM))
    # the number was overwritten: what follows must not take an argument for it
    yield (LOAD, 0, 0, NUMBER)
    yield (EQUAL, 0, 4, IOCTL[column])
    yield (LOAD, 0, 0, SECOND)
    yield from ((EQUAL, 1, 0, TYPING[0]), (EQUAL, 0, 1, TYPING[1]), _fail(errno.EPERM))
    yield (LOAD, 0, 0, NUMBER)
    yield (EQUAL, 0, len(FAMILIES) + 2, SOCKET[column])
    yield (LOAD, 0, 0, FIRST)
    for index, family in enumerate(FAMILIES):
        yield (EQUAL, len(FAMILIES) - index, 0, family)
    yield _fail(errno.EAFNOSUPPORT)
    yield (RETURN, 0, 0, ALLOW)


def _fail(number: int) -> Step:
    return (RETURN, 0, 0, FAIL | number)
