"""Hostile text made harmless."""


def printable(text: str) -> str:
    """Escape every character that a terminal could act on, or that hides others.

    Names from guests and images may hold escape sequences, line breaks and bidi controls.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
