"""Which subvolumes are snapshots of what is mounted, and which nobody has looked into."""

import pytest

from adapters.guestfs import mounts
from adapters.guestfs.btrfs import Listing, Subvolume, _parsed, snapshots, unseen
from adapters.guestfs.devices import Device, Devices

OUTPUT = """\
ID 256 gen 10 top level 5 parent_uuid -                                    uuid aaaa path @
ID 257 gen 10 top level 5 parent_uuid -                                    uuid bbbb path @home
ID 258 gen 9 top level 256 parent_uuid aaaa uuid cccc path @/.snapshots/2/snap shot
=
ID 256 gen 10 top level 5 path @
"""


EMPTY = Listing((), "")


def listing(default: str, *rows: tuple[int, str, str, str]) -> Listing:
    return Listing(tuple(Subvolume(*row) for row in rows), default)


def test_the_tools_output_is_read() -> None:
    found = _parsed(OUTPUT)
    assert found.default == "@"
    assert [(item.number, item.path) for item in found.subvolumes] == [
        (256, "@"),
        (257, "@home"),
        (258, "@/.snapshots/2/snap shot"),
    ]
    assert [item.is_snapshot for item in found.subvolumes] == [False, False, True]
    assert _parsed("=\nID 5 (FS_TREE)\n") == Listing((), "")


def test_snapshots_of_what_is_mounted_go_and_containers_layers_stay() -> None:
    found = listing(
        "",
        (256, "root", "-", "@"),
        (257, "snap", "root", "timeshift-btrfs/snapshots/1/@"),
        (258, "deep", "snap", "copy of a copy"),
        (259, "base", "-", "@/var/lib/docker/btrfs/subvolumes/base"),
        (260, "layer", "base", "@/var/lib/docker/btrfs/subvolumes/layer"),
    )
    gone = [item.path for item in snapshots(found, {256})]
    assert gone == ["timeshift-btrfs/snapshots/1/@", "copy of a copy"]  # the deepest first


def test_after_a_rollback_the_old_roots_go_and_the_new_one_stays() -> None:
    found = listing(
        "@/.snapshots/3/snapshot",
        (256, "top", "-", "@"),
        (257, "first", "-", "@/.snapshots/1/snapshot"),
        (258, "kept", "first", "@/.snapshots/2/snapshot"),
        (259, "now", "kept", "@/.snapshots/3/snapshot"),
    )
    gone = {item.path for item in snapshots(found, {259})}
    assert gone == {"@/.snapshots/1/snapshot", "@/.snapshots/2/snapshot"}


def test_what_is_in_no_mounted_subvolume_is_named() -> None:
    found = listing("", (256, "a", "-", "@"), (257, "b", "-", "@/srv"), (258, "c", "-", "@old"))
    assert unseen(found, ["@"]) == ["@old"]
    assert unseen(found, [""]) == []
    assert unseen(found, []) == ["@", "@/srv", "@old"]


def test_fstab_names_labels_that_blkid_does_not_print_as_they_are() -> None:
    """As blkid 2.38 printed the label "f\u00fc r" of an ext4, its escapes taken off."""
    devices = Devices(1, (Device("/dev/sdb", "/dev/sdb", "ext4", tags={"LABEL": "fM-CM-< r"}),), ())
    line = "LABEL=f\u00fc\\040r /home ext4 defaults 0 2\n"
    found = mounts.place(mounts.fstab(line), "/dev/sda1", devices, {}, lambda _: EMPTY)
    assert found.points == {"/": "/dev/sda1", "/home": "/dev/sdb"}


@pytest.mark.parametrize(
    ("line", "point", "name"),
    [
        ("LABEL=pool /home btrfs subvol=@home 0 2", "/home", "btrfsvol:/dev/sda/@home"),
        ("LABEL=pool /var btrfs ro,subvol=/@/var,noatime 0 2", "/var", "btrfsvol:/dev/sda/@/var"),
        ("LABEL=pool /srv btrfs defaults 0 2", "/srv", "/dev/sda"),
    ],
)
def test_fstab_names_subvolumes(line: str, point: str, name: str) -> None:
    devices = Devices(1, (Device("/dev/sda", "/dev/sda", "btrfs", tags={"LABEL": "pool"}),), ())
    root = "btrfsvol:/dev/sda/@"
    found = mounts.place(mounts.fstab(f"{line}\n"), root, devices, {}, lambda _: EMPTY)
    assert found.points == {"/": root, point: name}
    odd = mounts.fstab("LABEL=pool /srv btrfs subvolid=300 0 2\n")
    skipped = mounts.place(odd, root, devices, {}, lambda _: EMPTY)
    assert skipped.points == {"/": root}
    assert skipped.notes == [
        "/etc/fstab: LABEL=pool at /srv is skipped: no subvolume has that number"
    ]
