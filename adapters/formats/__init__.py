"""Strict bounded parsers of image formats, one module a format: an allowlist of what is understood.

Each `parse(window, findings)` reads headers and tables only, tells what it found, and refuses what
it does not know. None opens another file.
"""

from adapters.formats.window import Findings, Window

__all__ = ["Findings", "Window"]
