"""The sandbox of everything that parses untrusted bytes: bubblewrap, no network, only the named
files.

A file at PATH is seen inside as `/in/<digest of PATH>`: the name depends on nothing else, so an
overlay's backing reference made in one sandbox holds in the next. `/out` is the one output
directory.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.process import cgroup, command
from pipeline.errors import EnvironmentMissing
from pipeline.ports import Layer

# What programs from the distribution need to start: their own files and the loader's cache.
SYSTEM = ("/etc/ld.so.cache", "/etc/alternatives")
# What no program in here comes near; of a core the host would be told
EVERY: Mapping[str, int] = {"open_files": 4096, "processes": cgroup.PROCESSES, "core_size": 0}
USR_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Wraps argv lists. `enabled` False (configuration only) runs them on the bare host."""

    enabled: bool = True

    def name(self, file: Path | Layer) -> str:
        """What a file is called inside."""
        path = file.path if isinstance(file, Layer) else file
        if not self.enabled and isinstance(file, Layer) and file.fd is not None:
            return f"/proc/{os.getpid()}/fd/{file.fd}"
        if not self.enabled:
            return str(path.absolute())
        digest = hashlib.blake2s(os.fsencode(path.absolute()), digest_size=8).hexdigest()
        return f"/in/{digest}"

    def out(self, directory: Path, leaf: str) -> str:
        """What file `leaf` of the output directory is called inside."""
        return f"/out/{leaf}" if self.enabled else str(directory.absolute() / leaf)

    def wrap(
        self,
        argv: Sequence[str],
        *,
        read: Sequence[Path | Layer] = (),
        edit: Sequence[Path] = (),
        out: Path | None = None,
        scratch: Path | None = None,
        devices: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        limits: command.Limits | None = None,
    ) -> list[str]:
        """The argv that runs `argv` in the sandbox.

        `read` files (or directories) are seen read-only and `edit` files writable, under their
        `name`; a layer that is open is that file, whatever is at its path by now. `scratch` is a
        writable directory at /tmp and /var/tmp (else they are empty).
        """
        limits = limits or command.Limits()
        if self.enabled:
            limits = replace(limits, **EVERY)
        inner = [*limits.prefix(), *argv]
        if not self.enabled:
            variables = [f"{key}={value}" for key, value in (env or {}).items()]
            # without bubblewrap a killed galleria would leave its children behind
            return ["setpriv", "--pdeathsig", "KILL", "env", *variables, *inner]
        return [*self._namespace(read, edit, out, scratch, devices, env or {}), "--", *inner]

    def _namespace(
        self,
        read: Sequence[Path | Layer],
        edit: Sequence[Path],
        out: Path | None,
        scratch: Path | None,
        devices: Sequence[str],
        env: Mapping[str, str],
    ) -> list[str]:
        program = shutil.which("bwrap", path=command.PATH)
        if program is None:
            raise EnvironmentMissing(
                "the sandbox program bwrap is not installed: images are not opened outside of it",
                hint="install the package bubblewrap, or set sandbox = false in the configuration",
            )
        # of users: adapters.process.confinement
        argv = [program, "--new-session", "--clearenv"]
        argv += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        argv += ["--unshare-cgroup-try"]
        # no /proc: nothing in here needs it, and it tells of the host (paths in mountinfo)
        argv += ["--ro-bind", "/usr", "/usr", "--dev", "/dev"]
        for link in USR_LINKS:
            if Path("/", link).is_symlink():
                argv += ["--symlink", f"usr/{link}", f"/{link}"]
            elif Path("/", link).is_dir():
                argv += ["--ro-bind", f"/{link}", f"/{link}"]
        for name in SYSTEM:
            argv += ["--ro-bind-try", name, name]
        for device in devices:
            argv += ["--dev-bind-try", device, device]
        for directory in ("/tmp", "/var/tmp"):  # noqa: S108 - inside the sandbox
            argv += ["--bind", str(scratch), directory] if scratch else ["--tmpfs", directory]
        for file in read:
            if isinstance(file, Layer) and file.fd is not None:
                # bubblewrap finds its path, mounts that, and ends when it is another file by then
                argv += ["--ro-bind-fd", str(file.fd), self.name(file)]
            else:
                path = file.path if isinstance(file, Layer) else file
                argv += ["--ro-bind", str(path.absolute()), self.name(path)]
        for path in edit:
            argv += ["--bind", str(path.absolute()), self.name(path)]
        if out is not None:
            argv += ["--bind", str(out.absolute()), "/out"]
        for key, value in command.environment(env).items():
            argv += ["--setenv", key, value]
        return argv
