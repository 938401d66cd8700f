"""An encrypted guest, LVM inside LUKS: with its key treated like any other, without it refused with
what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.guestfs.luks import Key, parse_key
from adapters.guestfs.process import Helper
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.debian import default_cache
from pipeline.errors import NotFound, Refused
from pipeline.ports import Chain, ImageFormat, Layer
from tests.system.phony import MIB, ROOT_FILES, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
PASSPHRASE = "correct horse"  # noqa: S105 - of this test's disk
FSTAB = b"""\
/dev/mapper/vault-root / ext4 defaults 0 1
/dev/mapper/vault-var /var ext3 defaults 0 2
/dev/vault/swap none swap sw 0 0
"""
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
        file.truncate(112 * MIB)
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
        make_volumes(helper)
        helper.call("mount", "/dev/vault/root", "/")
        helper.call("mkdir", "/var")
        helper.call("mount", "/dev/vault/var", "/var")
        for path, content in ROOT_FILES.items():
            helper.call("mkdir_p", f"/{Path(path).parent}")
            helper.call("write", f"/{path}", content.encode())
        helper.call("write", "/etc/fstab", FSTAB)
        helper.call("write", "/etc/crypttab", f"crypt UUID={uuid} none luks\n".encode())
        helper.call("ln_s", "usr/bin", "/bin")
        for place in ("/residue", "/var/residue"):
            helper.call("write", place, SECRET)
        helper.call("umount_all")
        helper.call("vg_activate_all", False)
        helper.call("cryptsetup_close", "/dev/mapper/inner")

        session._keys = ()
        with pytest.raises(Refused, match="encrypted") as caught:
            session.mount()
        assert "--key-file" in caught.value.hint
        session._devices, session._system, session._keys = None, None, (Key(uuid, "wrong"),)
        with pytest.raises(Refused, match="no given key opens"):
            session.inspect()
        session._devices, session._system, session._keys = None, None, keys
        assert session.inspect().distribution == "debian"
        assert dict(session.inspect().mountpoints) == {
            "/": "/dev/vault/root",
            "/var": "/dev/vault/var",
        }
        guest = session.mount()
        guest.remove("/residue")
        guest.remove("/var/residue")
        # two files, the swap, the free extents
        assert count(helper) >= 4 * SECRET.count(b"\n")
        notes = session.free_ranges(zero_rest=True).notes
        zeroed = [note.partition(" ")[0] for note in notes if "zeroed" in note]
        volumes = [f"/dev/vault/{name}" for name in ("root", "swap", "var")]
        assert zeroed == [*volumes, f"/dev/mapper/luks-{uuid}"]
        assert count(helper) == 0


def make_volumes(helper: Helper) -> None:
    """LVM inside the encryption; its swap, and the extents that no volume has, hold secrets."""
    helper.call("pvcreate", "/dev/mapper/inner")
    helper.call("vgcreate", "vault", ["/dev/mapper/inner"])
    for name, size in (("root", 32), ("var", 16), ("swap", 8), ("gone", 8)):
        helper.call("lvcreate", name, "vault", size)
    helper.call("mkfs", "ext4", "/dev/vault/root")
    helper.call("mkfs", "ext3", "/dev/vault/var")
    helper.call("mkswap", "/dev/vault/swap")
    for name in ("swap", "gone"):
        helper.call("pwrite_device", f"/dev/vault/{name}", SECRET, 1 << 20)
    helper.call("lvremove", "/dev/vault/gone")


def count(helper: object) -> int:
    """How often the secret is in the opened volume's bytes."""
    call = helper.call  # type: ignore[attr-defined]
    call("sync")
    call("drop_caches", 3)  # a volume's writes do not reach the pages of what it lies on
    found = call("debug", "sh", ["grep -c -a secret-in-a-vault /dev/mapper/luks-*; true"])
    return int(found)
