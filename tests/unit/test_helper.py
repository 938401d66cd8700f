"""The helper process and its client: bytes, refusals, crashes, hangs. With a stand-in for the
bindings, so that nothing needs an appliance."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.guestfs import helper as helper_module
from adapters.guestfs.process import CallFailed, Helper
from adapters.process import command
from pipeline.errors import EnvironmentMissing, StageFailed

BINDINGS = """
import os, time, sys
EVENT_APPLIANCE = EVENT_LIBRARY = EVENT_WARNING = 1
class GuestFS:
    def __init__(self, python_return_dict=True): pass
    def set_event_callback(self, callback, mask): self.callback = callback
    def echo(self, *args, **options): return [list(args), options]
    def refuse(self, path): raise RuntimeError(f"refuse: {path}: No such file or directory")
    def nonsense(self): raise KeyError("what a guest is called")
    def crash(self): os.write(2, b"qemu: \\x1b[31mterrible\\n"); os.abort()
    def hang(self): self.callback(1, 0, "kernel panic", []); time.sleep(100)
    def wait_for(self, path):
        while not os.path.exists(path): time.sleep(0.01)
    def chatter(self): os.write(1, b"{}\\n"); return "fine"
"""


@contextmanager
def started(directory: Path) -> Iterator[Helper]:
    """The real helper.py, under this interpreter, with `guestfs` of `directory` if it is there."""
    run = (
        f"import sys, runpy; sys.path[:] = [{str(directory)!r}, *"
        "[p for p in sys.path if 'packages' not in p]];"
        f"runpy.run_path({helper_module.__file__!r}, run_name='__main__')"
    )
    with command.spawn([sys.executable, "-I", "-c", run], stdin=-1) as process:
        found = Helper(process)
        yield found
    found.join()


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    (tmp_path / "guestfs.py").write_text(BINDINGS)
    with started(tmp_path) as found:
        yield found


def test_values_travel_both_ways(helper: Helper) -> None:
    args = ["/päth", 7, True, b"\x00\xff", ["list"]]
    assert helper.call("echo", *args, mode=b"x") == [args, {"mode": b"x"}]
    helper.finish()


def test_refusal_is_an_error_and_the_helper_goes_on(helper: Helper) -> None:
    with pytest.raises(CallFailed, match="refuse: /x") as caught:
        helper.call("refuse", "/x")
    assert caught.value.absent
    assert helper.call("echo") == [[], {}]


def test_what_children_print_is_not_taken_for_a_reply(helper: Helper) -> None:
    assert helper.call("chatter") == "fine"


def test_crash_is_told_with_the_last_messages(helper: Helper) -> None:
    with pytest.raises(StageFailed, match=r"ended \(-6\) in crash") as caught:
        helper.call("crash")
    assert "qemu: \\x1b[31mterrible" in caught.value.message
    with pytest.raises(StageFailed):
        helper.call("echo")


def test_hang_is_ended_after_its_time(helper: Helper) -> None:
    helper.call("echo")  # it is up: the time is the call's own
    with pytest.raises(StageFailed, match="hang did not end within 1 s") as caught:
        helper.call("hang", timeout=1)
    assert "kernel panic" in caught.value.message


def test_missing_bindings_are_an_environment_error(tmp_path: Path) -> None:
    with started(tmp_path) as found, pytest.raises(EnvironmentMissing) as caught:
        found.call("echo")
    assert "python3-guestfs" in caught.value.hint


def test_a_posted_call_is_not_waited_for(helper: Helper, tmp_path: Path) -> None:
    helper.post("wait_for", str(tmp_path / "flag"), timeout=20)
    (tmp_path / "flag").touch()  # what was posted ends only by this
    assert helper.call("echo", 1) == [[1], {}]


def test_what_a_posted_call_fails_with_is_raised_by_the_next(helper: Helper) -> None:
    helper.post("refuse", "/x")
    with pytest.raises(CallFailed, match="refuse: /x"):
        helper.call("echo")
    assert helper.call("echo") == [[], {}]


def test_a_posted_call_has_a_time_limit(helper: Helper) -> None:
    helper.post("hang", timeout=1)
    with pytest.raises(StageFailed, match="hang did not end within 1 s"):
        helper.call("echo")


def test_what_its_children_used_is_known(helper: Helper) -> None:
    assert 0 < helper.call("cpu_seconds") < 60


def test_what_the_bindings_raise_is_a_refusal_and_the_helper_goes_on(helper: Helper) -> None:
    with pytest.raises(CallFailed, match="what a guest is called"):
        helper.call("nonsense")
    assert helper.call("echo") == [[], {}]
    helper.finish()


def test_a_guest_has_so_much_time_in_all(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "_left", 0.001)
    helper.call("echo")
    helper._left = min(helper._left, 0)
    with pytest.raises(StageFailed, match="took more than 60 minutes"):
        helper.call("echo")
