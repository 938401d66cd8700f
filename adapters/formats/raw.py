"""Raw disks, and everything that qemu or another tool would take a "raw" file for.

A guest can write any header into its own first sectors, so a raw file that begins (or ends) as any
known format is ambiguous and refused, whatever it was declared to be.
"""

from adapters.formats import vhd_footer
from adapters.formats.window import Findings, Window
from pipeline.data.extents import SECTOR

# (offset, magic, what it is); sources: the probe functions of qemu's block drivers, and the
# formats' own specifications
HEADS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "a qcow or qcow2 image"),
    (0, b"QED\0", "a QED image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a dynamic VHD image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image of ESX (COWD), a part of a disk: name its descriptor, NAME.vmdk"),
    (0, b"SE\0\0SpR", "a VMDK seSparse image, a part of a disk: name its descriptor, NAME.vmdk"),
    (
        0,
        b"\xbe\xba\xfe\xca\0\0\0\0",
        "a VMDK seSparse image, a part of a disk: name its descriptor, NAME.vmdk",
    ),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"Bochs Virtual HD Image", "a Bochs image"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "a cloop image"),
    (0, b"LUKS\xba\xbe", "an encrypted (LUKS) volume"),
    (0, b"SKUL\xba\xbe", "an encrypted (LUKS) volume"),
    (0, b"OOOM", "a User-Mode-Linux COW image"),
    (0, b"EVF\x09\x0d\x0a\xff\x00", "an EnCase (EWF) image"),
    (0, b"EVF2\x0d\x0a\x81\x00", "an EnCase (Ex01) image"),
    (0, b"sprs", "a macOS sparse image"),
    (0, b"CROD", "an Amiga or Xen CD image"),
    (0, b"vma\0", "a Proxmox VMA archive"),
    (0, b"\x1f\x8b", "a gzip file (unpack it with gunzip)"),
    (0, b"BZh", "a bzip2 file (unpack it with bunzip2)"),
    (0, b"\xfd7zXZ\0", "an xz file (unpack it with unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file (unpack it with unzstd)"),
    (0, b"LZIP\1", "an lzip file (unpack it with lzip -d)"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file (unpack it with unlz4)"),
    (0, b"\x89LZO\0\r\n\x1a\n", "an lzop file (unpack it with lzop -d)"),
    (0, b"\x1f\x9d", "a file of compress (unpack it with uncompress)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it with 7z x)"),
    (0, b"Rar!\x1a\x07", "a RAR archive (unpack it with unrar x)"),
    (0, b"PK\x03\x04", "a zip archive (unpack it with unzip)"),
    (0, b"!<arch>\n", "a Debian package or another ar archive"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"070701", "a cpio archive (an initramfs?)"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"MSWIM\0\0\0", "a Windows WIM image"),
    (0, b"ELKDISK", "an ELKS image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
    (257, b"ustar", "a tar archive (an OVA or a Vagrant box?)"),
)
# from the end of the file
TAILS: tuple[tuple[int, bytes, str], ...] = (
    (512, b"conectix", "a fixed VHD image"),
    (511, b"conectix", "a VHD image with an old footer of 511 bytes"),
    (512, b"koly", "an Apple DMG image (convert it with qemu-img convert -f dmg)"),
)
# a VMDK descriptor is text, and qemu skips comments and blank lines before its "version="
DESCRIPTOR = b"# disk descriptor"
TEXT_MAGICS: tuple[tuple[bytes, str], ...] = (
    (DESCRIPTOR, "a VMDK descriptor file"),
    (b"json:", "a qemu json: reference"),
    (b"<?xml", "an XML file (OVF, libvirt, Parallels?)"),
    (b"<!doctype html", "an HTML page: what a server answered instead of the image?"),
    (b"<html", "an HTML page: what a server answered instead of the image?"),
    (b"<!--", "an HTML or XML page: what a server answered instead of the image?"),
    (b"<head", "an HTML page: what a server answered instead of the image?"),
    (b"version https://git-lfs", "a pointer of Git LFS, which is not the file (git lfs pull)"),
    (b"[version]", "a text file"),
)
TEXT_LIMIT = 1 << 20  # no disk is that small and all text


def lookalikes(window: Window) -> list[str]:
    """Every known format that the first and last bytes match."""
    head = window.read(0, min(window.size, 4096), "the first bytes")
    tail = window.read(max(0, window.size - 512), min(window.size, 512), "the last bytes")
    found = [what for offset, magic, what in HEADS if head[offset:].startswith(magic)]
    found += [
        what
        for distance, magic, what in TAILS
        if len(tail) >= distance and tail[len(tail) - distance :].startswith(magic)
    ]
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found += [what for magic, what in TEXT_MAGICS if text.startswith(magic)]
    if not found and _is_descriptor(head):
        found.append("a VMDK descriptor file")
    if not found and vhd_footer.is_without_cookie(tail, window.size):
        found.append("a fixed VHD image whose footer lost its cookie (`conectix`)")
    if not found and window.size <= TEXT_LIMIT and _is_text(window):
        found.append("a text file")
    return found


def _is_text(window: Window) -> bool:
    """Lines of printable characters and nothing else, not even a NUL; but what begins as JSON or
    markup may be padded to whole sectors."""
    data = window.read(0, window.size, "the file")
    text = data.rstrip(b"\0")
    if text.lstrip()[:1] not in (b"{", b"<") and (text != data or b"\n" not in text):
        return False
    try:
        return text.translate(None, b"\t\r\n\f").decode().isprintable() and bool(text)
    except UnicodeDecodeError:
        return False


def _is_descriptor(head: bytes) -> bool:
    """As qemu's vmdk_probe: after comments and blank lines, the first line is `version=`."""
    for line in head.splitlines()[:200]:
        text = line.strip().lower()
        if text.startswith(b"#") or not text:
            continue
        return text.startswith(b"version=")
    return False


def parse(window: Window, findings: Findings) -> None:
    """A raw disk is its bytes; refused when it could be taken for something else."""
    findings.variant = "raw"
    findings.virtual_size = window.size
    for what in lookalikes(window):
        findings.refusals.append(f"it would be read as a raw disk, but it looks like {what}")
    if findings.refusals:
        # a reference is there to be followed; all else is merely another kind of file
        findings.unread = not any("reference" in refusal for refusal in findings.refusals)
        return
    findings.refuse_unless(
        window.size % SECTOR == 0, f"its length of {window.size} bytes is not whole sectors of 512"
    )
