"""`galleria doctor`: what this host can do."""

import textwrap

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.text import printable
from pipeline.errors import EnvironmentMissing

WIDTH = 96


@click.command(cls=Command)
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check what this host can do; exit 0 only when the main job can run."""
    from adapters import doctor

    settings = context.find_object(Settings) or Settings()
    checks = doctor.run(settings.load())
    works = doctor.can_run(checks)
    lines = []
    for check in checks:
        lines.append(_wrapped(f"{check.verdict.value:4}  {check.name}: {check.found}"))
        if check.advice:
            lines.append(_wrapped(f"      -> {check.advice}"))
    counts = {
        verdict: sum(check.verdict is verdict for check in checks) for verdict in doctor.Verdict
    }
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    end = "the main job can run" if works else "the main job can't run here"
    settings.emit(
        {"works": works, "checks": checks}, "\n".join([*lines, f"doctor: {summary}: {end}"])
    )
    if not works:
        context.exit(EnvironmentMissing.exit_status)


def _wrapped(line: str) -> str:
    return textwrap.fill(printable(line), WIDTH, subsequent_indent=" " * 9)
