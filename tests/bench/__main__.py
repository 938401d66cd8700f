"""galleria and its peers, side by side: `scripts/bench --help`."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from fixtures.debian import default_cache
from tests.bench import host, report
from tests.bench.data import SCALES, Data
from tests.bench.disks import one_disk, private_mounts
from tests.bench.judging import figures
from tests.bench.rows import MEMORY, Row, cells, select
from tests.bench.runs import Bench, Runs

EXIT_ENVIRONMENT = 3
ROUNDS, QUICK_ROUNDS = 5, 2


def main() -> int:
    options = arguments()
    if options.list:
        for name, (row, _) in cells(quick=False).items():
            print(f"{name:24} {row.table}: {row.title}")
        return 0
    scale = SCALES[options.scale or ("quick" if options.quick else "full")]
    out = options.out or options.cache / f"results-{scale.name}"
    (out / "cells").mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    if not options.report:
        if os.geteuid() != 0:
            print("scripts/bench: mounting file systems takes root", file=sys.stderr)
            return EXIT_ENVIRONMENT
        private_mounts()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
        data = Data(scale, options.cache)
        chosen = cells(quick=options.quick)
        if options.only:
            chosen = select(options.only, quick=options.quick)
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        try:
            failed = measure_all(chosen, rounds, data, out)
        finally:  # of what was measured, however this ends
            report.write(out)
    else:
        report.write(out)
    print(f"the report is {out / 'bench.md'}")
    return 1 if failed else 0


def measure_all(
    chosen: Mapping[str, tuple[Row, str]], rounds: int, data: Data, out: Path
) -> list[str]:
    """Measure these cells; those that failed: the others can be measured all the same."""
    failed = []
    for name, (row, system) in chosen.items():
        try:
            measure(name, row, system, rounds, data, out)
        except (OSError, RuntimeError, SubprocessError) as error:
            print(f"{name:22} FAILED: {error}", file=sys.stderr)
            failed.append(name)
    return failed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure galleria's data path beside its peers. Data are made once (about "
        "30 GiB with the disk that file systems are made on; 10 GiB with --quick); results of rows "
        "that are measured one by one are put together in one report.",
    )
    parser.add_argument("--quick", action="store_true", help="every row, once, on less data")
    parser.add_argument("--only", metavar="ROW[@SYSTEM],...", help="these rows alone")
    parser.add_argument("--rounds", type=int, help=f"instead of {ROUNDS} ({QUICK_ROUNDS})")
    parser.add_argument("--out", type=Path, help="directory of the results")
    parser.add_argument("--report", action="store_true", help="only write the report again")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--scale", choices=SCALES, help=argparse.SUPPRESS)
    default = default_cache() / "bench"
    parser.add_argument("--cache", type=Path, default=default, help=f"of the data: {default}")
    return parser.parse_args()


def measure(name: str, row: Row, system: str, rounds: int, data: Data, out: Path) -> None:
    """Measure one cell, record it, and say what came of it."""
    began = time.monotonic()
    cache = data.directory.parent
    with (
        one_disk(cache / f"disk-{data.scale.name}.img", data.scale.disk) as disk,
        tempfile.TemporaryDirectory(prefix="work-", dir=cache) as work,
    ):
        before = os.getloadavg()
        runs = row.run(Bench(data, disk, Path(work), rounds, system))
    record = document(name, row, rounds, runs, data)
    record["load"] = [before, os.getloadavg()]
    (out / "cells" / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    for figure in figures(record):
        if figure.limit is not MEMORY:
            what = f"{figure.limit.measure.value} : {figure.limit.peer or '-'}"
            met = "met" if figure.met else "NOT met"
            spread = f"({figure.low:.2f}-{figure.high:.2f})"
            print(f"{name:22} {what:24} {figure.value:6.2f} {spread:14}"
                  f" target {figure.limit.target:g}: {met}")  # fmt: skip
    print(f"{name:22} took {time.monotonic() - began:.0f} s", flush=True)


def document(name: str, row: Row, rounds: int, runs: Runs, data: Data) -> dict[str, Any]:
    """Everything that is known of a measured cell."""
    return {
        "cell": name,
        "title": row.title,
        "cache": row.cache,
        "rounds": rounds,
        "scale": data.scale.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host.facts(data.directory),
        "data": data.made(),
        "timings": {
            contender: [timing.document() for timing in timings]
            for contender, timings in runs.timings.items()
        },
        "notes": runs.notes,
    }


if __name__ == "__main__":
    sys.exit(main())
