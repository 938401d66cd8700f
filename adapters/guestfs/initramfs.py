"""What is in an initial RAM file system, listed in the appliance: the file is the guest's.

It may consist of several cpio archives: early ones (microcode) are stored as they are and padded to
512 bytes, the last one is compressed (Linux, Documentation/driver-api/early-userspace/
buffer-format.rst).
"""

from adapters.guestfs.process import Helper
from adapters.guestfs.shell import quote, run_script

NAMES = 200_000  # a hostile archive may go on for ever
SECONDS = 120.0

# What the magic says unpacks it; then for each stored archive: find its end, go on behind the zeros
SCRIPT = """
file=%s; start=0
unpack() { tail -c +$((start + 1)) "$file" | "$@" 2>/dev/null; }
for part in 1 2 3 4; do
  case $(tail -c +$((start + 1)) "$file" | head -c 6 | od -An -tx1 | tr -d ' ') in
    303730373031|303730373032)
      unpack cat | cpio -t --quiet 2>/dev/null
      last=$(unpack grep -obUa -m1 'TRAILER!!!' | head -n 1 | cut -d: -f1)
      [ -n "$last" ] || break
      start=$(( (start + last + 11 + 511) / 512 * 512 ))
      zeros=$(unpack od -An -v -tx1 -w512 | grep -n -m1 '[1-9a-f]' | cut -d: -f1)
      [ -n "$zeros" ] || break
      start=$(( start + (zeros - 1) * 512 )) ;;
    1f8b*) unpack gzip -dc | cpio -t --quiet 2>/dev/null; break ;;
    28b52ffd*) unpack zstd -dc | cpio -t --quiet 2>/dev/null; break ;;
    fd377a585a00) unpack xz -dc | cpio -t --quiet 2>/dev/null; break ;;
    5d0000*) unpack xz --format=lzma -dc | cpio -t --quiet 2>/dev/null; break ;;
    425a68*) unpack bzip2 -dc | cpio -t --quiet 2>/dev/null; break ;;
    894c5a4f*) unpack lzop -dc | cpio -t --quiet 2>/dev/null; break ;;
    *) break ;;
  esac
done | head -n %d
"""


def names(helper: Helper, path: str) -> list[str]:
    """Sorted. `path` is the file's in the appliance; it must be a regular one. LZ4, which the
    appliance can't unpack, reads as empty."""
    script = f"set +o pipefail; {SCRIPT % (quote(path), NAMES)}"
    listed = run_script(helper, script, timeout=SECONDS)
    return sorted(line.decode("utf-8", "surrogateescape") for line in listed.splitlines())
