"""Which accelerator really works: KVM may be there and abort, or hang (both were measured).

The test boots the fixed appliance's own kernel the way libguestfs would and waits for its first
words. The answer is kept per host: it can only change with the kernel, the CPU or qemu.
"""

import hashlib
import json
import os
import platform
import select
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.guestfs.process import printable
from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.errors import EnvironmentMissing

KVM = Path("/dev/kvm")
TRIAL_SECONDS = 25.0
ALIVE = b"Linux version"
SANDBOX_FAILED = ": bwrap: "  # how bubblewrap begins what it says, behind how it ended
# what libguestfs 1.48 asks qemu for: the CPU model and the console of each architecture
MACHINES = {"x86_64": ("max", "ttyS0"), "aarch64": ("host", "ttyAMA0"), "ppc64le": ("host", "hvc0")}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """`kind` is "kvm" or "tcg" (software emulation, some ten times slower); `reason` says why."""

    kind: str
    reason: str


def without_kvm(kvm: Path = KVM) -> Accelerator | None:
    """What is left to a host that has no KVM for this user; None: it is to be tried."""
    if os.access(kvm, os.R_OK | os.W_OK):
        return None
    there = "may not be opened by this user" if kvm.exists() else "does not exist"
    return Accelerator("tcg", f"{kvm} {there}")


def known(cache_dir: Path) -> Accelerator | None:
    """What is known without trying anything; None: there is a KVM, and nobody has tried it yet."""
    try:
        return without_kvm() or _recall(_memory(cache_dir, f"qemu-system-{platform.machine()}"))
    except EnvironmentMissing:
        return None


def _memory(cache_dir: Path, program: str) -> Path:
    return cache_dir / f"accelerator-{_host_key(program)}.json"


def probe(
    sandbox: Sandbox,
    cache_dir: Path,
    appliance: Path,
    *,
    qemu: str = "",
    kvm: Path = KVM,
    seconds: float = TRIAL_SECONDS,
    again: bool = False,
) -> Accelerator:
    """The accelerator to use on this host: remembered, or tried now (at most `seconds`;
    `again` even if remembered)."""
    without = without_kvm(kvm)
    if without is not None:
        return without
    program = qemu or f"qemu-system-{platform.machine()}"
    memory = _memory(cache_dir, program)
    remembered = None if again else _recall(memory)
    if remembered is not None:
        return remembered
    found = _try_kvm(sandbox, appliance, program, kvm, seconds)
    # a sandbox that fails says nothing of KVM, and is mended without a new kernel or qemu
    if SANDBOX_FAILED not in found.reason:
        _remember(memory, found)
    return found


def _host_key(program: str) -> str:
    """Of each session, so no process is started for it: the program is known by its file."""
    found = shutil.which(program, path=command.PATH)
    if found is None:
        raise EnvironmentMissing(
            f"the program {program} is not installed", hint="galleria doctor lists what is missing"
        )
    stat = Path(found).stat()
    version = f"{found} {stat.st_size} {stat.st_mtime_ns}"
    cpu = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("vendor_id", "cpu family", "model", "stepping", "microcode", "flags"))
    ]
    parts = [platform.release(), version, *sorted(set(cpu))]
    return hashlib.blake2s("\n".join(parts).encode(), digest_size=8).hexdigest()


def _recall(memory: Path) -> Accelerator | None:
    try:
        found = json.loads(memory.read_text())
        return Accelerator(kind=str(found["kind"]), reason=str(found["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not what this version wrote: try again


def _remember(memory: Path, found: Accelerator) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False) as file:
        json.dump(asdict(found), file)
    Path(file.name).rename(memory)


def _try_kvm(
    sandbox: Sandbox, appliance: Path, program: str, kvm: Path, seconds: float
) -> Accelerator:
    model, console = MACHINES.get(platform.machine(), ("host", "ttyS0"))
    kernel, initrd = appliance / "kernel", appliance / "initrd"
    argv = [program, "-accel", "kvm", "-cpu", model, "-m", "512", "-display", "none"]
    argv += ["-nodefaults", "-no-reboot", "-serial", "stdio"]
    argv += ["-kernel", sandbox.name(kernel), "-initrd", sandbox.name(initrd)]
    argv += ["-append", f"panic=1 console={console}"]
    wrapped = sandbox.wrap(argv, read=[kernel, initrd], devices=[str(kvm)])
    deadline = time.monotonic() + seconds
    said = b""
    with command.spawn(wrapped, grouped=True) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe by construction
        assert process.stderr is not None  # noqa: S101
        while ALIVE not in said:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([process.stdout], [], [], wait)[0]:
                return Accelerator("tcg", f"a kernel under KVM said nothing for {seconds:.0f} s")
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                status = process.wait()
                said_last = process.stderr.read().decode(errors="replace")
                error = printable(" ".join(said_last.split()), limit=300)
                return Accelerator("tcg", f"qemu with KVM ended ({status}): {error}")
            said = said[-len(ALIVE) :] + part
    return Accelerator("kvm", "a kernel started under KVM")
