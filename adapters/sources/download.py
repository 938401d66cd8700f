"""A disk image behind a URL: fetched into the cache, resumed there, and taken only if its SHA-256
is the one that the user gave. qemu never sees a URL.

    <cache>/downloads/<digest of URL and checksum>.lock      who fetches it now
                                                  .partial   what is there of it
                                                  .json      which content that is a part of
                                                  .image     all of it, verified
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.filesystem import durable, leftovers
from adapters.sources.http import Answer, DownloadFailed, Reach, get, split
from pipeline.errors import Conflict, InvalidParameter, NoSpace, NotFound, Refused, UnsafeImage
from pipeline.gallery import rules
from pipeline.model.garbage import AT_ONCE, Collected, Garbage, Keep
from pipeline.model.sources import UrlSource, public_url
from pipeline.ports import Meter, Progress

ATTEMPTS = 4  # a connection that breaks off is taken up again at once, so often
SPARE = 64 << 20
DOCUMENT_LIMIT = 4 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCK = re.compile(r"[0-9a-f]{64}\.lock")
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a download may bring, in bytes, and how long it may take, in seconds. Slower than
    `least_rate` bytes a second over `patience` seconds is too slow."""

    length: int = 32 << 40
    seconds: float = 24 * 3600
    least_rate: int = 1024
    patience: float = 60.0


def parse_checksum(text: str) -> str:
    """`sha256:HEX` as its hexadecimal digest. Raises InvalidParameter."""
    algorithm, _, digest = text.strip().partition(":")
    if algorithm.lower() != "sha256" or not _SHA256.fullmatch(digest.lower()):
        raise InvalidParameter(
            f"{text[:100]!a} is not a checksum such as sha256:9f86d081... (64 hexadecimal digits)"
        )
    return digest.lower()


class Downloads:
    """The cache of downloaded images."""

    def __init__(
        self,
        directory: Path,
        progress: Progress,
        reach: Reach,
        bounds: Bounds | None = None,
        keep: Keep = AT_ONCE,
    ) -> None:
        self._directory = directory
        self._progress = progress
        self._reach = reach
        self._bounds = bounds or Bounds()
        self._keep = keep

    @contextmanager
    def open(self, source: UrlSource) -> Iterator[Path]:
        """The image, complete and verified, held as long as the `with`.

        Raises AddressRefused and Refused for where the URL leads, UnsafeImage for a wrong checksum
        or an answer that is too long, DownloadFailed for what may be tried again.
        """
        split(source.url)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        collect_downloads(self._directory, self._keep)
        name = hashlib.sha256(f"{source.sha256} {source.url}".encode()).hexdigest()
        with _locked(self._directory / f"{name}.lock", public_url(source.url)):
            yield self._fetched(source, self._directory / name)

    def document(self, url: str) -> bytes:
        """What a URL answers, which is short, and not kept. Raises as `open` does."""
        split(url)
        deadline = time.monotonic() + self._bounds.patience
        content = bytearray()
        with get(url, {"Accept": "application/json"}, self._reach, deadline) as answer:
            _check_status(answer, url)
            for piece in answer.pieces():
                content += piece
                if len(content) > DOCUMENT_LIMIT:
                    raise UnsafeImage(
                        f"{public_url(url)!a} answers more than {DOCUMENT_LIMIT >> 20} MiB"
                    )
        return bytes(content)

    def _fetched(self, source: UrlSource, place: Path) -> Path:
        image = place.with_suffix(".image")
        if image.is_file():
            if _digest(image) == source.sha256:
                os.utime(image)
                return image
            image.unlink()
        part = _Part(place.with_suffix(".partial"), place.with_suffix(".json"))
        try:
            self._complete(source, part)
            if _digest(part.path) != source.sha256:
                shown = public_url(source.url)
                raise UnsafeImage(
                    f"what {shown!a} answers does not have the SHA-256 {source.sha256}",
                    hint="nothing of it is kept; is the checksum that of this very file?",
                )
        except DownloadFailed:
            if not part.resumable:
                part.discard()
            raise
        except Exception:  # an end from outside, a signal's, leaves it: the next run continues
            part.discard()
            raise
        durable.sync_file(part.path)
        part.path.chmod(0o400)
        durable.rename_new(part.path, image)
        part.discard()
        return image

    def _complete(self, source: UrlSource, part: "_Part") -> None:
        deadline = time.monotonic() + self._bounds.seconds
        for attempt in range(1, ATTEMPTS + 1):
            before = part.length
            try:
                self._attempt(source, part, deadline)
                return
            except DownloadFailed:
                stuck = part.length <= before or not part.resumable
                if stuck or attempt == ATTEMPTS or time.monotonic() >= deadline:
                    raise

    def _attempt(self, source: UrlSource, part: "_Part", deadline: float) -> None:
        with get(source.url, part.condition(), self._reach, deadline) as answer:
            start, total = _accepted(answer, part, source.url)
            if total is not None:
                self._check_length(total, source.url)
            with (
                part.writer(start) as fd,
                self._progress.stage("download", total or 0) as meter,
            ):
                meter.advance(start)
                done = self._receive(answer, fd, start, meter, source.url)
        if total is not None and done != total:
            raise DownloadFailed(
                f"{answer.host!a} sent {done} of {total} bytes",
                hint="the same command continues where the server can",
            )

    def _receive(self, answer: Answer, fd: int, start: int, meter: Meter, url: str) -> int:
        done, since, count = start, time.monotonic(), 0
        for piece in answer.pieces():
            done += len(piece)
            count += len(piece)
            if done > self._bounds.length:
                raise UnsafeImage(
                    f"{public_url(url)!a} has more than the {self._bounds.length} bytes allowed"
                )
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
            meter.advance(len(piece))
            now = time.monotonic()
            if now - since > self._bounds.patience:
                if count < self._bounds.least_rate * (now - since):
                    raise DownloadFailed(f"{answer.host!a} sends too slowly")
                since, count = now, 0
        return done

    def _check_length(self, total: int, url: str) -> None:
        if total > self._bounds.length:
            raise UnsafeImage(
                f"{public_url(url)!a} has {total} bytes, and {self._bounds.length} are allowed"
            )
        facts = os.statvfs(self._directory)
        free = facts.f_bavail * facts.f_frsize
        if total + SPARE > free:
            raise NoSpace(
                f"{public_url(url)!a} has {total} bytes, and the cache has room for {free}",
                hint="make room there, or set another cache in the configuration",
            )


def collect_downloads(directory: Path, keep: Keep) -> Collected:
    """Remove downloads that nobody has asked for in a long time, or that are too much together."""
    with leftovers.named(directory, _LOCK) as locks:
        found = [_Download(directory, lock).entry for lock in locks]
        return leftovers.collect(
            str(directory), Garbage.DOWNLOAD, found, keep.downloads, keep.downloads_size, keep
        )


class _Download:
    """The files of one download, by its lock."""

    def __init__(self, directory: Path, lock: leftovers.Entry) -> None:
        self._lock = directory / lock.name
        size = sum(leftovers.size_of(path) for path in self._files)
        self.entry = leftovers.Entry(lock.name, size, lock.used, self._forget)

    @property
    def _files(self) -> list[Path]:
        return [self._lock.with_suffix(f".{kind}") for kind in ("partial", "json", "image", "lock")]

    def _forget(self) -> str:
        try:
            with _locked(self._lock, self._lock.name, touch=False):
                for path in self._files:
                    path.unlink(missing_ok=True)
        except Conflict:
            return "it is in use"
        return ""


class _Part:
    """What is there of a content: its bytes, and the entity tag of the content they belong to."""

    def __init__(self, path: Path, record: Path) -> None:
        self.path = path
        self._record = record

    @property
    def length(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def tag(self) -> str:
        """The strong entity tag, or nothing: then there is nothing to continue."""
        try:
            record = json.loads(self._record.read_text())
            tag = record["etag"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return tag if isinstance(tag, str) and _strong(tag) else ""

    @property
    def resumable(self) -> bool:
        return bool(self.tag) and self.length > 0

    def condition(self) -> dict[str, str]:
        """Ask for the rest, but only if it is still the rest of the same content (RFC 9110, 13.1.5
        and 14.2): otherwise the whole is answered."""
        if not self.resumable:
            return {}
        return {"Range": f"bytes={self.length}-", "If-Range": self.tag}

    def remember(self, tag: str) -> None:
        if _strong(tag):
            durable.write_file(self._record, json.dumps({"etag": tag}).encode(), overwrite=True)
        else:
            self._record.unlink(missing_ok=True)

    @contextmanager
    def writer(self, start: int) -> Iterator[int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            os.ftruncate(fd, start)
            os.lseek(fd, start, os.SEEK_SET)
            yield fd
        finally:
            os.close(fd)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


def _strong(tag: str) -> bool:
    return len(tag) < 512 and tag.isascii() and tag.isprintable() and tag.startswith('"')


def _accepted(answer: Answer, part: _Part, url: str) -> tuple[int, int | None]:
    """Where the body begins and how long the whole is. Raises when it is no answer to be read."""
    if answer.header("Content-Encoding").lower() not in ("", "identity"):
        raise Refused(f"{answer.host!a} answers with a content encoding that was not asked for")
    length = answer.header("Content-Length")
    if length and not (length.isascii() and length.isdecimal() and len(length) < 20):
        raise Refused(f"{answer.host!a} answers with a length that is no number")
    if answer.status == 206:
        match = _RANGE.fullmatch(answer.header("Content-Range"))
        asked = part.resumable
        if not asked or match is None or int(match[1]) != part.length:
            part.discard()
            raise Refused(f"{answer.host!a} answers with another range than was asked for")
        if answer.header("ETag") not in ("", part.tag):
            part.discard()
            raise Refused(f"{answer.host!a} answers with a part of another content")
        return part.length, int(match[3])
    if answer.status == 416:  # the part is as long as the whole, or longer
        part.discard()
        raise DownloadFailed(f"{answer.host!a} has no rest of what was begun; begin again")
    _check_status(answer, url)
    part.remember(answer.header("ETag"))
    return 0, int(length) if length else None


def _check_status(answer: Answer, url: str) -> None:
    if answer.status in (404, 410):
        raise NotFound(f"{public_url(url)!a} is not there: {answer.host!a} answers {answer.status}")
    if answer.status == 429:
        raise rules.source_throttled(public_url(url), f"{answer.host!a} answers 429")
    if answer.status != 200:
        raise DownloadFailed(f"{answer.host!a} answers {answer.status} to {public_url(url)!a}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path, what: str, *, touch: bool = True) -> Iterator[None]:
    fd = durable.lock(path, create=True)
    if fd is None:
        raise Conflict(f"{what[:200]!a} is being downloaded by another process")
    try:
        if touch:
            os.utime(fd)
        yield
    finally:
        os.close(fd)
