"""NTFS volumes of a session: their state before they are mounted, and their free space after."""

from adapters.guestfs import blocks, ntfs
from adapters.guestfs.devices import Device, Devices
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import quote, run_script
from pipeline.ports import VolumeState
from pipeline.ports.extents import Range

READ_PART = 2 << 20
WIPE_SECONDS = 3600.0
# unused file records, directory entries of removed files, the log, what lies between a file's end
# and the end of its cluster: what the bitmap does not tell
WIPE = "ntfswipe -f -q -m -d -l -t"


def states(helper: Helper, found: Devices) -> tuple[VolumeState, ...]:
    """A volume that can't be read is one that must not be written: dirty."""
    listed = []
    for device in found.devices:
        if device.kind != "ntfs":
            continue
        try:
            volume = opened(helper, device)
            dirty, journal = volume.is_dirty(), volume.has_journal()
        except blocks.Unsure:
            dirty, journal = True, True
        listed.append(VolumeState(printable(device.name), dirty, journal))
    return tuple(listed)


def free_clusters(helper: Helper, device: Device) -> tuple[Range, ...]:
    """Free clusters by $Bitmap. What removed files leave in the volume's own tables is wiped
    first: small files lie there whole."""
    before = opened(helper, device)
    if before.is_dirty() or before.has_journal():
        raise blocks.Unsure("it was not closed cleanly")
    # the appliance mixes both outputs: what it says is kept for a failure
    wipe = f'said=$({WIPE} {quote(device.node)} 2>&1) || {{ echo "$said" >&2; exit 1; }}'
    run_script(helper, wipe, timeout=WIPE_SECONDS)
    volume = opened(helper, device)
    return blocks.bitmap(volume.bitmap(), volume.cluster, volume.length)


def opened(helper: Helper, device: Device) -> ntfs.Volume:
    def read(offset: int, length: int) -> bytes:
        content = b""
        while len(content) < length:
            count = min(READ_PART, length - len(content))
            try:
                part = helper.call("pread_device", device.name, count, offset + len(content))
            except CallFailed as error:
                raise blocks.Unsure(f"it cannot be read at {offset}") from error
            if not part:
                break
            content += part
        return content

    return ntfs.Volume(read)
