"""The dependency rule, and what may lie where."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence, Set
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parent.parent.parent
# The pipeline opens no process, no database, no socket and no file format.
PIPELINE_THIRD_PARTY = {"xxhash", "blake3"}
WORLD = {
    *("shutil", "tempfile", "glob", "fileinput", "linecache", "resource", "signal", "select"),
    *("selectors", "pwd", "grp", "getpass", "platform", "logging", "io.open"),
    *("subprocess", "multiprocessing", "pty", "ctypes", "concurrent.futures.process"),
    *("sqlite3", "dbm", "shelve"),
    *("socket", "socketserver", "ssl", "asyncio", "http", "urllib", "ftplib", "smtplib", "xmlrpc"),
    *("zipfile", "tarfile", "fcntl"),
}
# It does no input or output of its own either: ports do. What of the system's modules it may use:
SYSTEM_MODULES = ("os", "time", "sys", "mmap", "secrets", "random", "uuid")
SYSTEM = {
    "os.cpu_count",  # how many threads are worth while
    "time.monotonic",  # a clock is read, nothing is waited for
    *("secrets.token_bytes", "uuid.uuid4", "uuid.UUID"),  # names that nobody has yet
    "mmap.mmap",  # anonymous memory: `mmap(-1, ...)`
}
BUILTINS = {"open", "input", "print", "exec", "eval", "breakpoint", "__import__"}
# What paths can do with files. `absolute` reads the working directory and touches no file;
# `group` is a match's.
FILES = {name for name in set(dir(Path)) - set(dir(PurePath)) if name[0] != "_"}
FILES -= {"absolute", "group"}
# What has methods of such names without being a path, by the names that variables have for it.
PORTS = {
    *("guest", "_guest", "reader", "edit"),  # a guest's files, in the appliance
    *("gallery", "_gallery", "_views"),  # `resolve` finds a version
    *("images", "files", "sources", "_inner"),  # `open`
    *("machines", "disks"),  # `exists`
}
# The rooms of `pipeline`, from the ground up: each imports only those of the floors below it.
ROOMS = (
    {"errors"},
    {"model"},  # the language: names and records
    {"ports"},
    {"data"},
    {"gallery"},
    {"sources"},
    {"storage"},
    {"guest"},
    {"azure"},
    {"jobs"},
    {"resources", "deploying"},
    {"publish", "resume"},
)
# Adapters import each other only downwards in this list: what implements a port stands in none of
# its floors, so that one of those never knows another. `app` and its callers put them together.
ADAPTERS = (
    {"text"},
    {"process"},
    {"filesystem"},
    {"formats"},
    {"qemu", "pins"},
)
WIRING = {"app", "cli", "doctor", "server"}
TOP_LEVEL = {
    *("pipeline", "adapters", "fixtures", "tests", "scripts", ".ci"),
    *("README.md", "CHANGELOG.md", "LICENSE", ".github", "Vagrantfile"),
    *("pyproject.toml", "requirements.txt", ".gitignore"),
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for name in node.names:
                yield node.lineno, f"{node.module}.{name.name}"


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def breaches(path: Path) -> list[str]:
    """What in a pipeline module reaches outside."""
    found = []
    for line, name in imports(path):
        top = name.split(".")[0]
        known = top == "pipeline" or top in PIPELINE_THIRD_PARTY or top in sys.stdlib_module_names
        if not known or any(name == bad or name.startswith(f"{bad}.") for bad in WORLD):
            found.append(f"{path.relative_to(ROOT)}:{line}: imports {name}")
        if top in SYSTEM_MODULES and "." in name and name not in SYSTEM:
            found.append(f"{path.relative_to(ROOT)}:{line}: imports {name}")
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Call) and acts(node, tree):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: uses {ast.unparse(node)}")
    return found


def acts(node: ast.Attribute | ast.Call, tree: ast.Module) -> bool:
    """Whether it reads, writes, waits, or otherwise acts on what is outside of the program."""
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        return name.split(".")[0] in SYSTEM_MODULES and name.count(".") == 1 and name not in SYSTEM
    if isinstance(node.func, ast.Name):
        anonymous = node.func.id == "mmap" and ast.unparse(node.args[0]) == "-1"
        return node.func.id in BUILTINS or (node.func.id == "mmap" and not anonymous)
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in FILES:
        return False
    if node.func.attr == "replace":  # a text's has two arguments, a path's one
        return len(node.args) == 1 and not node.keywords
    receiver = ast.unparse(node.func.value).split(".")[-1]
    return receiver not in PORTS and not (receiver == "self" and node.func.attr in methods(tree))


def methods(tree: ast.Module) -> set[str]:
    """The names of the methods of a module's classes."""
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {
        item.name for each in classes for item in each.body if isinstance(item, ast.FunctionDef)
    }


def test_the_pipeline_touches_nothing_but_itself() -> None:
    assert [breach for path in modules("pipeline") for breach in breaches(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "from sqlite3 import connect",
        "def f():\n    from adapters import command",
        "import sqlalchemy",
        "import guestfs",
        "import urllib.request",
        "import os\nos.system('true')",
        "import os\nos.fsync(3)",
        "import os\nos.rename('a', 'b')",
        "from os import unlink",
        "import shutil",
        "import time\ntime.sleep(1)",
        "import time\ndef f(wait=time.sleep): ...",
        "from time import sleep",
        "open('x')",
        "print('x')",
        "def f(path): path.open('rb')",
        "def f(path): path.open()",
        "def f(base): return base.manifest.read_bytes()",
        "def f(path): path.unlink()",
        "def f(path): path.rename('x')",
        "def f(path, other): path.replace(other)",
        "def f(zone): return zone.path.stat().st_dev",
        "def f(path): return path.parent.exists()",
        "from mmap import mmap\ndef f(fd): mmap(fd, 0)",
        "class A:\n    def f(self): return self.exists()",
    ],
)
def test_a_breach_is_seen(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "module.py"
    module.write_text(code)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert breaches(module)


@pytest.mark.parametrize(
    "code",
    [
        "import time\nstarted = time.monotonic()",
        "def f(text): return text.replace('a', 'b')",
        "from dataclasses import replace\ndef f(x): return replace(x, y=1)",
        "def f(self): return self.guest.stat('/etc/passwd')",
        "def f(context, chain): return context.images.open(chain)",
        "def f(found): return found.group(1)",
        "from mmap import mmap\nbuf = mmap(-1, 4096)",
        "class A:\n    def exists(self): ...\n    def f(self): return self.exists()",
    ],
)
def test_what_is_no_breach(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "module.py"
    module.write_text(code)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert breaches(module) == []


def room(name: str) -> str:
    """`pipeline.guest.windows.tree` belongs to the room `guest`; the package itself to none."""
    return name.split(".")[1] if "." in name else ""


def floor(name: str, floors: Sequence[Set[str]]) -> int:
    """The number of a room's floor; those that are on no list stand above it."""
    found = (number for number, names in enumerate(floors) if name in names)
    return next(found, len(floors) + (name in WIRING))


def imports_up(package: str, floors: Sequence[Set[str]]) -> list[str]:
    """Imports of another room that is not on a floor below."""
    found = []
    for path in modules(package):
        own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports(path):
            other = room(name) if name.startswith(f"{package}.") else own
            if own not in (other, *WIRING) and floor(other, floors) >= floor(own, floors):
                found.append(f"{path.relative_to(ROOT)}:{line}: imports {name}")
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(ROOT / "pipeline").parts[0] for path in modules("pipeline")}
    listed = {name for names in ROOMS for name in names}
    assert {name.removesuffix(".py") for name in rooms} - listed == {"__init__"}


def test_rooms_know_only_what_lies_below_them() -> None:
    assert imports_up("pipeline", ROOMS) == []


def test_adapters_know_only_what_lies_below_them() -> None:
    assert imports_up("adapters", ADAPTERS) == []


def test_an_import_that_goes_up_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "pipeline" / "data" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text("from pipeline.jobs.context import Ports\nfrom pipeline import publish\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(imports_up("pipeline", ROOMS)) == 2


def test_the_main_job_is_on_one_screen() -> None:
    """And nobody goes back into it: what others need lies below."""
    tree = ast.parse((ROOT / "pipeline" / "publish.py").read_bytes())
    bodies = [node.body for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert sum((body[-1].end_lineno or 0) - body[0].lineno + 1 for body in bodies) <= 60
    found = [name for path in modules("pipeline") for _, name in imports(path)]
    assert [name for name in found if name.startswith("pipeline.publish")] == []


def test_there_is_one_door_to_subprocesses() -> None:
    door = ROOT / "adapters" / "process" / "command.py"
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules("adapters")
        if path != door
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and re.match(r"(subprocess\.\w+|Popen|os\.system|os\.popen)$", ast.unparse(node.func))
    ]
    assert found == []


def test_the_product_does_not_know_its_tests() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for package in ("pipeline", "adapters")
        for path in modules(package)
        for line, name in imports(path)
        if name.split(".")[0] in ("fixtures", "tests", "pytest", "hypothesis", "dissect")
    ]
    assert found == []


def test_the_top_level_is_the_map() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert names - TOP_LEVEL == set()


def test_nothing_names_this_machine_or_a_registry() -> None:
    place = str(ROOT).encode()
    assert [path for path in tracked() if place in path.read_bytes()] == []
    for path in (ROOT / "scripts").rglob("*"):
        if path.is_file():
            assert "://" not in path.read_text(), path
    for path in (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        odd = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line)]
        assert odd == [], path


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    for wanted, files in (
        (project["dependencies"], ["requirements.txt"]),
        (optional["dev"], ["requirements.txt", "tests/requirements.txt"]),
    ):
        pinned = {
            line.split("==")[0] for file in files for line in (ROOT / file).read_text().splitlines()
        }
        names = {
            re.sub(r"[-_.]+", "-", re.split(r"[\[><=~! ]", item)[0]).lower() for item in wanted
        }
        assert names - pinned == set()


def test_no_large_binaries() -> None:
    large = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.stat().st_size > 100 << 10 and b"\0" in path.read_bytes()
    ]
    assert large == []
