"""What `galleria publish` has as an option, a build spec has as a key, and both mean the same."""

import shlex
from pathlib import Path
from typing import Any

from adapters.cli.publish import publish_command, request_of
from adapters.cli.spec import spec_request
from adapters.spec import schema
from pipeline.jobs.prepare import PublishRequest
from tests.specs import load_spec

# Every option of publish, by the name of its parameter, and the key that says the same.
KEYS = {
    "os_disk": "source.osDisk",
    "data_disks": "source.dataDisks.path",
    "backing": "source.osDiskBacking",
    "os_vhd_uri": "source.osVhdUri",
    "data_vhd_uris": "source.dataDisks.vhdUri",
    "checksums": "source.checksum",
    "vm": "source.vm",
    "box": "source.box",
    "ova": "source.ova",
    "machine": "source.ovaMachine",
    "configuration": "source.ovaConfiguration",
    "extents_from": "source.extentsFrom",
    "qmp": "source.qmp",
    "qga": "source.qga",
    "os_snapshot": "source.osSnapshot",
    "data_snapshots": "source.dataDisks.snapshot",
    "managed_image": "source.managedImage",
    "image_version": "source.imageVersion",
    "controller": "source.machine.diskControllerType",
    "accelerated": "source.machine.acceleratedNetwork",
    "plan": "source.machine.purchasePlan",
    "name": "image.version",
    "location": "image.location",
    "exclude_from_latest": "image.excludeFromLatest",
    "end_of_life_date": "image.endOfLifeDate",
    "tags": "image.tags",
    "allow": "image.safetyProfile.allowDeletionOfReplicatedLocations",
    "block": "image.safetyProfile.blockDeletionBeforeEndOfLife",
    "templates": "image.securityProfile.uefiSettings.signatureTemplateNames",
    "signatures": "image.securityProfile.uefiSettings.additionalSignatures",
    "regions": "targetRegions.name",
    "excluded": "targetRegions.excludeFromLatest",
    "additional": "targetRegions.additionalReplicaSets",
    "edges": "targetEdgeZones.zone",
    "replica_count": "replicaCount",
    "replication_mode": "replicationMode",
    "storage_account_type": "storageAccountType",
    "storage_account_strategy": "storageAccountStrategy",
    "caching": "hostCaching",
    "generalize": "generalize",
    "profile": "generalize.profile",
    "operations": "generalize.operations",
    "enable": "generalize.enable",
    "skip": "generalize.skip",
    "remove_user": "generalize.removeUsers",
    "keep_user": "generalize.keepUsers",
    "agents": "generalize.agents",
    "force": "force",
    "validate": "validate",
    "boot_check": "bootCheck",
    "preflight": "preflight",
    "wait": "wait",
}
NOT_IN_SPECS = {
    "dry_run": "galleria plan says what a build would do",
    "key_file": "a secret: build and plan have the option, a spec is no place for it",
    "list_operations": "galleria operations",
    "encryption": "for scripts that come from az: nothing but null can be said",
    "cvm_encryption": "the same",
}
GLOBAL = {"config", "principal", "subscription", "resource_group", "json", "quiet", "progress"}
GLOBAL |= {"verbose", "help", "given_subscription", "given_group"}

LINE = """corp/web/1.2.3 --os-disk /d/web.vhd --backing /d/below --data-disk 0=/d/data.vhd
  --extents-from /
  --data-vhd-uri 1=https://x.example/d.vhd --checksum 1=sha256:HEX --data-snapshot 2=s1
  --source-disk-controller NVMe --source-accelerated-network true --source-plan pub/prod/name
  --location eu --exclude-from-latest --end-of-life-date 2099-01-31 --tags "team=web ring=1"
  --allow-replicated-location-deletion false --block-deletion-before-end-of-life true
  --uefi-signature-template NoSignatureTemplate --uefi-additional-signatures KEYS
  --target-regions "eu=2=Standard_ZRS UK South" --exclude-from-latest-in uksouth
  --target-edge-zones "eu=paris=2 UK South=leeds=Premium_LRS"
  --additional-replicas "eu=3=Premium_LRS" --replica-count 4 --replication-mode Full
  --storage-account-type Premium_LRS --host-caching ReadOnly --host-caching 0=None
  --generalize --profile minimal --enable logs --skip machine-id,ssh-host-keys
  --remove-user bob --keep-user ann --force --validate azure --boot-check
  --no-preflight --wait none"""
SPEC = """\
apiVersion: galleria/v1
kind: ImageVersion
image:
  {gallery: corp, definition: web, version: 1.2.3, location: eu, excludeFromLatest: true,
   endOfLifeDate: 2099-01-31, tags: {team: web, ring: "1"},
   safetyProfile:
     {allowDeletionOfReplicatedLocations: false, blockDeletionBeforeEndOfLife: true},
   securityProfile: {uefiSettings: {signatureTemplateNames: [NoSignatureTemplate],
     additionalSignatures: {db: [{type: sha256, value: [AAAA]}]}}}}
source:
  osDisk: /d/web.vhd
  osDiskBacking: [/d/below]
  extentsFrom: /
  dataDisks:
    - {lun: 0, path: /d/data.vhd}
    - {lun: 1, vhdUri: "https://x.example/d.vhd", checksum: "sha256:HEX"}
    - {lun: 2, snapshot: s1}
  machine:
    {diskControllerType: NVMe, acceleratedNetwork: true,
     purchasePlan: {publisher: pub, product: prod, name: name}}
generalize:
  {profile: minimal, enable: [logs], skip: [machine-id, ssh-host-keys], removeUsers: [bob],
   keepUsers: [ann]}
targetRegions:
  - name: eu
    replicas: 2
    storageAccountType: Standard_ZRS
    additionalReplicaSets: [{storageAccountType: Premium_LRS, regionalReplicaCount: 3}]
  - {name: UK South, excludeFromLatest: true}
targetEdgeZones:
  - {region: eu, zone: paris, replicas: 2}
  - {region: UK South, zone: leeds, storageAccountType: Premium_LRS}
replicaCount: 4
replicationMode: Full
storageAccountType: Premium_LRS
hostCaching: {os: ReadOnly, 0: None}
force: true
validate: azure
bootCheck: true
preflight: false
wait: none
"""


def of_line(text: str) -> PublishRequest:
    context = publish_command.make_context("publish", shlex.split(text))
    values = dict(context.params)
    return request_of(values.pop("name"), values, ["eu", "UK South"])


def of_spec(text: str, directory: Path) -> PublishRequest:
    path = directory / "spec.yaml"
    path.write_text(text)
    return spec_request(load_spec(path))


def test_no_option_is_lost() -> None:
    names = {parameter.name for parameter in publish_command.params}
    assert names - GLOBAL == set(KEYS) | set(NOT_IN_SPECS)
    assert not set(KEYS) & set(NOT_IN_SPECS)


def test_every_key_is_in_the_schema() -> None:
    known = set(_paths(schema(), schema()))
    assert [key for key in KEYS.values() if key not in known] == []


def _paths(node: Any, root: Any, prefix: str = "") -> list[str]:
    """Every key below a node of the schema, with those above it."""
    if "$ref" in node:
        return _paths(root["$defs"][node["$ref"].rpartition("/")[2]], root, prefix)
    found = []
    for part in (*node.get("anyOf", ()), *node.get("oneOf", ()), node.get("items")):
        if part:
            found += _paths(part, root, prefix)
    for name, inner in node.get("properties", {}).items():
        found += [prefix + name, *_paths(inner, root, f"{prefix}{name}.")]
    return found


def test_a_line_and_a_spec_ask_for_the_same(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"db": [{"type": "sha256", "value": ["AAAA"]}]}')
    line = of_line(LINE.replace("HEX", "a" * 64).replace("KEYS", str(keys)))
    spec = of_spec(SPEC.replace("HEX", "a" * 64), tmp_path)
    assert line.version == spec.version
    assert sorted(map(repr, line.sources)) == sorted(map(repr, spec.sources))
    assert line.plan == spec.plan
    assert (line.wait, line.preflight, line.force, line.boot_check) == (
        spec.wait,
        spec.preflight,
        spec.force,
        spec.boot_check,
    )


def test_the_least_of_both_is_the_same(tmp_path: Path) -> None:
    line = of_line("corp/web/1.2.3 --qmp /run/vm.sock --qga /run/agent.sock")
    spec = of_spec(
        "{apiVersion: galleria/v1, kind: ImageVersion, source: {qmp: /run/vm.sock, "
        "qga: /run/agent.sock}, image: {gallery: corp, definition: web, version: 1.2.3}}",
        tmp_path,
    )
    assert line == spec


def test_an_ova_and_a_machine_over_a_box_are_the_same(tmp_path: Path) -> None:
    for line, source in (
        (
            "--ova /d/a.ova --machine web --configuration small",
            "ova: /d/a.ova, ovaMachine: web, ovaConfiguration: small",
        ),
        ("--vm web --backing /d/box.img", "vm: web, osDiskBacking: [/d/box.img]"),
    ):
        spec = of_spec(
            f"{{apiVersion: galleria/v1, kind: ImageVersion, source: {{{source}}}, "
            "image: {gallery: corp, definition: web, version: 1.2.3}}",
            tmp_path,
        )
        assert of_line(f"corp/web/1.2.3 {line}") == spec
