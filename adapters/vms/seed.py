"""Seeds: a small ISO 9660 image that tells cloud-init who a machine is (the NoCloud data source).

cloud-init takes `user-data` and `meta-data` from a file system with the label CIDATA
(https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html).
"""

import io
import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

from pycdlib.pycdlib import PyCdlib

from pipeline.model import OsProfile

LABEL = "CIDATA"


def seed(profile: OsProfile, instance: str) -> bytes:
    """The image. `instance` is an id that no other machine has: by it cloud-init knows that this is
    a first boot."""
    meta = {"instance-id": instance, "local-hostname": profile.computer_name}
    return image({"user-data": user_data(profile), "meta-data": json.dumps(meta) + "\n"})


def user_data(profile: OsProfile) -> str:
    """The configuration, and the custom data after it; cloud-init sees by their first lines what
    they are. JSON is YAML."""
    text = "#cloud-config\n" + json.dumps(cloud_config(profile), indent=2) + "\n"
    if not profile.custom_data:
        return text
    whole = MIMEMultipart()
    whole.attach(MIMEText(text, "cloud-config"))
    whole.attach(MIMEText(profile.custom_data, "plain"))
    return whole.as_string()


def cloud_config(profile: OsProfile) -> dict[str, Any]:
    config: dict[str, Any] = {
        "hostname": profile.computer_name,
        "preserve_hostname": False,
        "manage_etc_hosts": "localhost",  # the machine resolves its own name
    }
    if profile.admin_username:
        config["users"] = [
            {
                "name": profile.admin_username,
                "groups": "sudo, adm",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": list(profile.ssh_keys),
            }
        ]
    elif profile.ssh_keys:
        config["ssh_authorized_keys"] = list(profile.ssh_keys)
    return config


def image(files: dict[str, str]) -> bytes:
    """An ISO 9660 image with Joliet and Rock Ridge names."""
    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, text) in enumerate(files.items()):
        content = text.encode()
        iso.add_fp(
            io.BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    written = io.BytesIO()
    iso.write_fp(written)
    iso.close()
    return written.getvalue()
