"""An encrypted guest: with its key treated like any other, without it refused with what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.guestfs.luks import Key, parse_key
from adapters.images import QemuImages
from adapters.sandbox import Sandbox
from fixtures.debian import default_cache
from pipeline.errors import NotFound, Refused
from pipeline.ports import Chain, ImageFormat, Layer
from tests.system.phony import MIB, ROOT_FILES, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
PASSPHRASE = "correct horse"  # noqa: S105 - of this test's disk
SECRET = b"secret-in-a-vault-51c8e2\n" * 40


def test_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{PASSPHRASE}\n")
    assert parse_key(str(file)) == Key("all", PASSPHRASE)
    assert parse_key(f"/dev/sda2:file:{file}") == Key("/dev/sda2", PASSPHRASE)
    assert parse_key("0b-1:key:a:key:b") == Key("0b-1", "a:key:b")
    assert PASSPHRASE not in repr(parse_key(str(file)))
    with pytest.raises(NotFound):
        parse_key(str(tmp_path / "none"))


def test_with_its_key_a_volume_is_treated_and_without_refused(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("cryptsetup")
    disk, passphrase = tmp_path / "disk.raw", tmp_path / "passphrase"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    passphrase.write_text(PASSPHRASE)
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode")
    run("cryptsetup", "luksFormat", "--type", "luks2", *cheap, disk, passphrase)
    uuid = run("cryptsetup", "luksUUID", disk).strip()
    chain: Chain = QemuImages(Sandbox()).create_overlay(
        (Layer(disk, ImageFormat.RAW),), tmp_path / "top.qcow2"
    )
    keys = (Key("all", PASSPHRASE),)
    host = GuestfsHost(Sandbox(), default_cache(), keys=keys)
    with host.session([chain], writable=True) as session:
        helper = session._helper
        helper.call("cryptsetup_open", "/dev/sda", PASSPHRASE, "inner")
        helper.call("mkfs", "ext4", "/dev/mapper/inner")
        helper.call("mount", "/dev/mapper/inner", "/")
        for path, content in ROOT_FILES.items():
            helper.call("mkdir_p", f"/{Path(path).parent}")
            helper.call("write", f"/{path}", content.encode())
        helper.call("write", "/etc/fstab", b"/dev/mapper/vault / ext4 defaults 0 1\n")
        helper.call("write", "/etc/crypttab", f"vault UUID={uuid} none luks\n".encode())
        helper.call("ln_s", "usr/bin", "/bin")
        helper.call("write", "/residue", SECRET)
        helper.call("umount_all")
        helper.call("cryptsetup_close", "/dev/mapper/inner")

        session._keys = ()
        with pytest.raises(Refused, match="encrypted") as caught:
            session.mount()
        assert "--key" in caught.value.hint
        session._devices, session._system, session._keys = None, None, (Key(uuid, "wrong"),)
        with pytest.raises(Refused, match="no given key opens"):
            session.inspect()
        session._devices, session._system, session._keys = None, None, keys
        assert session.inspect().distribution == "debian"
        guest = session.mount()
        guest.remove("/residue")
        assert count(helper) > 0
        notes = session.free_ranges(zero_rest=True).notes
        assert any("free space zeroed" in note for note in notes), notes
        assert count(helper) == 0


def count(helper: object) -> int:
    """How often the secret is in the opened volume's bytes."""
    call = helper.call  # type: ignore[attr-defined]
    call("sync")
    found = call("debug", "sh", ["grep -c -a secret-in-a-vault /dev/mapper/luks-*; true"])
    return int(found)
