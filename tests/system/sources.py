"""What VMs are handed over as, for tests of sources: a domain's XML, an OVF, archives, a server."""

import contextlib
import gzip
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DOMAIN = """<domain type='kvm'><name>web</name>
<os firmware='efi'><type arch='x86_64'>hvm</type><nvram>VARS.fd</nvram></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='top.qcow2'/>
 <backingStore type='file'><format type='qcow2'/><source file='base.qcow2'/><backingStore/>
 </backingStore><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='data.raw'/>
 <target dev='vdb' bus='virtio'/></disk>
</devices></domain>"""

OVF = """<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="rasd" xmlns:v="vmw">
<References><File id="f1" href="os.vmdk"/><File id="f2" href="data.vmdk"/></References>
<DiskSection><Disk diskId="d1" fileRef="f1" capacity="8388608"/>
 <Disk diskId="d2" fileRef="f2" capacity="8388608"/></DiskSection>
<VirtualSystem><OperatingSystemSection><Description>Debian_64</Description></OperatingSystemSection>
<VirtualHardwareSection>
 <Item><r:InstanceID>3</r:InstanceID><r:ResourceType>6</r:ResourceType></Item>
 <Item><r:AddressOnParent>0</r:AddressOnParent><r:HostResource>ovf:/disk/d1</r:HostResource>
  <r:InstanceID>4</r:InstanceID><r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType></Item>
 <Item><r:AddressOnParent>1</r:AddressOnParent><r:HostResource>/disk/d2</r:HostResource>
  <r:InstanceID>5</r:InstanceID><r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType></Item>
 <v:Config key="firmware" value="efi"/></VirtualHardwareSection></VirtualSystem></Envelope>"""


def qemu_img(*args: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def archive(path: Path, members: dict[str, bytes], *, compress: bool) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = stream.getvalue()
    path.write_bytes(gzip.compress(content, 1) if compress else content)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def checksum(path: Path) -> str:
    out = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    return f"sha256:{out.stdout.split()[0]}"
