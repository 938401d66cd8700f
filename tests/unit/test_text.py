"""Text for people: hostile strings are harmless, sizes are readable, tables are aligned."""

import pytest

from adapters.text import bytes_text, fields, printable, seconds_text, table


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("plain name-1.0", "plain name-1.0"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("evil\u202etxt.exe", r"evil\u202etxt.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("Zürich 東京", "Zürich 東京"),
        ("bad\udc80byte", r"bad\udc80byte"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
    ],
)
def test_printable(hostile: str, harmless: str) -> None:
    assert printable(hostile) == harmless
    assert printable(hostile).isprintable()
    printable(hostile).encode()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (3 * 1024**3 + 100 * 1024**2, "3.1 GiB"),
        (1023 * 1024, "1023 KiB"),
        (1024**2 - 1, "1 MiB"),
        (40 * 1024**3, "40 GiB"),
        (2 * 1024**4, "2 TiB"),
        (123456789, "118 MiB"),
    ],
)
def test_bytes_text(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (1.25, "1.2s"),
        (12.4, "12s"),
        (76, "1m16s"),
        (59.7, "1m00s"),
        (7500, "2h05m"),
    ],
)
def test_seconds_text(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_table_is_aligned_and_escaped() -> None:
    text = table(("NAME", "SIZE"), [("a\x1b", "1 KiB"), ("longer", "100 MiB")])
    assert text.split("\n") == [
        "NAME       SIZE",
        "a\\x1b     1 KiB",
        "longer  100 MiB",
    ]
    assert table(("A", "B"), []) == "A  B"


def test_fields_leave_out_what_is_empty() -> None:
    assert fields([("name", "x\n"), ("other", ""), ("longer name", 0)]) == (
        "name         x\\n\nlonger name  0"
    )
