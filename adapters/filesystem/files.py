"""Files of galleria's own, as bytes (the `Files` port)."""

from pathlib import Path
from typing import BinaryIO

from pipeline.ports import Files


class HostFiles:
    def open(self, path: Path) -> BinaryIO:
        return path.open("rb")

    def create(self, path: Path) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


_: type[Files] = HostFiles
