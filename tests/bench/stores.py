"""Peers that keep versions of an image: how each stores one, and the next one."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# a round of these takes a minute or more where galleria takes one second
LIMIT = 150.0


@dataclass(frozen=True, slots=True)
class Store:
    """`first` prepares a directory; `add` is what stores an image in it, as `version`."""

    name: str
    compressed: bool
    add: Callable[[Path, Path, str], Sequence[str | Path]]
    first: Callable[[Path], Sequence[Sequence[str | Path]]] = lambda _: ()
    env: Callable[[Path], Mapping[str, str]] = lambda _: {}

    def fill(self, image: Path, directory: Path) -> None:
        """Store the first version."""
        for argv in (*self.first(directory), self.add(image, directory, "v1")):
            subprocess.run(
                list(map(str, argv)),
                check=True,
                env={**os.environ, **self.env(directory)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


def _borg_environment(directory: Path) -> dict[str, str]:
    return {
        "BORG_BASE_DIR": str(directory / "home"),
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    }


def _restic_environment(directory: Path) -> dict[str, str]:
    return {
        "RESTIC_PASSWORD": "benchmark",
        "RESTIC_REPOSITORY": str(directory / "repository"),
        "RESTIC_CACHE_DIR": str(directory / "cache"),
    }


# borg with chunks of a fixed length, as its manual advises for disk images, and of galleria's
# length; neither it nor restic compresses. casync always does.
STORES = (
    Store(
        "casync",
        compressed=True,
        add=lambda image, directory, version: (
            *("casync", "make", f"--store={directory / 'chunks.castr'}"),
            *(directory / f"{version}.caibx", image),
        ),
    ),
    Store(
        "borg",
        compressed=False,
        first=lambda directory: (("borg", "init", "--encryption=none", directory / "repository"),),
        add=lambda image, directory, version: (
            *("borg", "create", "--compression=none", "--sparse"),
            *("--chunker-params=fixed,262144", f"{directory / 'repository'}::{version}", image),
        ),
        env=_borg_environment,
    ),
    Store(
        "restic",
        compressed=False,
        first=lambda _: (("restic", "init", "--quiet"),),
        add=lambda image, _directory, _version: (
            *("restic", "backup", "--quiet", "--compression=off", image),
        ),
        env=_restic_environment,
    ),
)
