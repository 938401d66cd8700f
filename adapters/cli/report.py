"""How the report of a guest is shown, by the commands that make one and those that show a version.

It is read from its document: nothing of what made it is loaded.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from adapters.text import fields, seconds_text, table

NOT_FOR_IT = "not applicable"  # the result of an operation that is for other guests
SHOWN_PATHS = 3  # of an operation, on one line


def report_text(report: Mapping[str, Any] | None) -> str:
    """A report, readable: each operation that is for such a guest, with its result and paths, then
    what the guest is."""
    if report is None:
        return "there is no report"
    rows = [
        (item["name"], item["result"], len(item["changes"]) or "", _paths(item["changes"]))
        for item in report.get("operations", ())
        if item["result"] != NOT_FOR_IT
    ]
    parts = [table(("OPERATION", "RESULT", "PATHS", ""), rows)] if rows else []
    parts.append(fields(_report_fields(report)))
    return "\n\n".join(part for part in parts if part)


def _report_fields(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    check, inventory = report.get("check", {}), report.get("inventory") or {}
    other = sum(item["result"] == NOT_FOR_IT for item in report.get("operations", ()))
    found: list[tuple[str, object]] = [
        ("profile", report.get("profile", "")),
        (NOT_FOR_IT, f"{other} operations" if other else ""),
        ("guest", guest_text(report.get("guest", {}))),
        ("looks", check.get("verdict", "") + (", taken by --force" * bool(check.get("forced")))),
        *(("  because", reason) for reason in check.get("reasons", ())),
        *(("note", note) for note in report.get("notes", ())),
        *(("free space", note) for note in report.get("free_space", ())),
    ]
    if "copied_from" in report:
        found.append(("as it was for", report["copied_from"]))
    if "validation" in report:
        found += _validation_fields(report["validation"])
    if "boot" in report:
        boot = report["boot"]
        found.append(("boots", f"{boot['by']} after {seconds_text(boot['seconds'])}"))
    if inventory:
        counts = (
            f"{len(inventory['sbom']['components'])} packages, "
            f"{len(inventory['files'])} configuration files, {len(inventory['users'])} accounts"
        )
        found.append(("inventory", counts))
    return found


def _validation_fields(validation: Mapping[str, Any]) -> list[tuple[str, object]]:
    """How many checks hold, and each that does not."""
    checks = validation["findings"]
    counts = Counter(item["result"] for item in checks)
    said = ", ".join(f"{count} {result}" for result, count in counts.most_common())
    return [
        (f"for {validation['for']}", said),
        *(
            (f"  {item['result']}", f"{item['check']}: {item['found']}")
            for item in checks
            if item["result"] in ("warn", "unknown")
        ),
    ]


def _paths(changes: list[Mapping[str, str]]) -> str:
    shown = ", ".join(f"{item['action']} {item['path']}" for item in changes[:SHOWN_PATHS])
    more = len(changes) - SHOWN_PATHS
    return f"{shown} and {more} more" if more > 0 else shown


def guest_text(guest: Mapping[str, str]) -> str:
    """What the guest of a report is."""
    names = (guest.get("os_type", ""), guest.get("distribution", ""), guest.get("version", ""))
    return guest_name(*names) or "unknown"


def guest_name(*words: str) -> str:
    """OS type, distribution and version, as far as they are known. (Windows is its own
    distribution.)"""
    return " ".join(word for word in dict.fromkeys(words) if word not in ("", "unknown"))
