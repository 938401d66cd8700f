"""A machine as a qemu command line, in a shell script that passes its own arguments on."""

import json
import shlex
from typing import Any

from adapters.vms.parts import LOOPBACK, Disk, Start
from pipeline.model import HostCaching
from pipeline.model.deployments import BRIDGE, NO_NETWORK
from pipeline.ports.vms import Machine

_HEAD = """#!/bin/sh
# Starts {name}, from {title}: its console is this terminal; more arguments go to qemu. ACCEL=kvm
# or ACCEL=tcg (software emulation) chooses how it is run. Ends with the machine, or by Ctrl-A X.
"""
# the second is for another host that has no KVM; where KVM is there but broken QEMU would not get
# so far
_ACCEL = {"kvm": "kvm:tcg", "tcg": "tcg"}


def script(machine: Machine, start: Start) -> str:
    words = [shlex.quote(word) for word in arguments(machine, start)]
    chosen = words.index("-machine") + 1
    default = _ACCEL[start.accelerator]
    words[chosen] = words[chosen].replace(default, f'"${{ACCEL:-{default}}}"')
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    body = " \\\n  ".join([f"exec {lines[0]}", *lines[1:], '"$@"'])
    return _HEAD.format(name=machine.name, title=machine.title) + body + "\n"


def arguments(machine: Machine, start: Start) -> list[str]:
    """The program and all its arguments."""
    board = f"{start.machine},accel={_ACCEL[start.accelerator]}"
    board += ",smm=on" if start.needs_smm else ""
    argv = [f"qemu-system-{start.arch}", "-nodefaults", "-no-user-config"]
    argv += ["-name", machine.name, "-uuid", machine.uuid]
    argv += ["-machine", board, "-cpu", "max"]
    argv += ["-smp", str(machine.vcpus), "-m", str(machine.memory_mib)]
    if start.code is not None:
        if start.needs_smm:
            argv += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={_plain(start.code)}"]
        argv += ["-drive", f"if=pflash,format=raw,file={_plain(start.nvram)}"]
    if any(disk.bus == "scsi" for disk in start.disks):
        argv += ["-device", "virtio-scsi-pci,id=scsi"]
    # q35 has one controller with six ports, called ide; more come after it
    controllers = {disk.address[0] for disk in start.disks if disk.bus == "sata"} - {0}
    for controller in sorted(controllers):
        argv += ["-device", f"ich9-ahci,id=sata{controller}"]
    for number, disk in enumerate(start.disks):
        argv += _disk(f"disk{number}", disk)
    if machine.network != NO_NETWORK:
        model = "virtio-net-pci" if start.card == "virtio" else start.card
        argv += ["-netdev", _network(machine)]
        argv += ["-device", f"{model},netdev=net,mac={machine.mac_address}"]
    argv += ["-device", "virtio-rng-pci", "-display", "none"]
    return [*argv, "-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console"]


def _network(machine: Machine) -> str:
    """A network of libvirt's has no name for QEMU: a machine of one is in user mode here."""
    if machine.network.startswith(BRIDGE):
        return f"bridge,id=net,br={machine.network.removeprefix(BRIDGE)}"
    forwards = [
        f",hostfwd=tcp:{LOOPBACK}:{forward.host}-:{forward.guest}" for forward in machine.forwards
    ]
    return "user,id=net" + "".join(forwards)


def _disk(name: str, disk: Disk) -> list[str]:
    """JSON, as a path may hold any character."""
    file = {"driver": "file", "filename": str(disk.path)}
    node: dict[str, Any] = {"driver": disk.format.value, "node-name": name, "file": file}
    node |= {"read-only": True} if disk.readonly else {"discard": "unmap"}
    if disk.caching is not None:
        node["cache"] = {"direct": disk.caching is HostCaching.NONE}
    controller, unit = disk.address
    if disk.bus == "virtio":
        device = f"virtio-blk-pci,drive={name}"
    elif disk.bus == "scsi":
        device = f"scsi-hd,bus=scsi.0,channel=0,scsi-id=0,lun={unit},drive={name}"
    else:
        bus = f"ide.{unit}" if controller == 0 else f"sata{controller}.{unit}"
        device = f"{'ide-cd' if disk.cdrom else 'ide-hd'},bus={bus},drive={name}"
    if disk.caching is not None:
        device += f",write-cache={'off' if disk.caching is HostCaching.READ_ONLY else 'on'}"
    if name == "disk0":
        device += ",bootindex=0"
    return ["-blockdev", json.dumps(node), "-device", device]


def _plain(path: object) -> str:
    """qemu's option lists end at a comma; a doubled one is a comma."""
    return str(path).replace(",", ",,")
