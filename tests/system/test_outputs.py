"""What every command prints with --json is what its schema says: each is run here once or more,
and `Home.json` holds what it prints against the schema that is shipped."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from adapters import doctor
from adapters.catalog import open_catalog
from adapters.cli import proof
from adapters.cli.commands import cli
from adapters.cli.outputs import FOREIGN, OUTPUTS
from adapters.cli.schema import FILE
from pipeline.guest.boot import Booted
from pipeline.model.names import parse_version
from pipeline.model.runs import Run, RunKind, RunState
from tests.contract.storing import pattern
from tests.docs import schemas
from tests.home import VALIDATED, Session, validator

pytestmark = pytest.mark.system

MIB = 1 << 20
DOMAIN = """<domain type='kvm'><name>web</name><os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{file}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""
SPEC = """apiVersion: galleria/v1
kind: ImageVersion
image: {{gallery: corp, definition: pet, version: {version}}}
source: {{osDisk: {file}}}
targetRegions: [{{name: eu}}]
"""
IDENTIFIER = "--hyper-v-generation V1 -p C -f o -s s"
COMMUNITY = "--publisher-uri=https://x --publisher-email=a@b.c --eula=x --public-name-prefix=pub"
GUID = "11111111-2222-3333-4444-555555555555"
# one needs an appliance, the others go on: their own tests print through `Home.json`, too
SLOW = {"generalize", "serve", "serve vagrant"}


def leaves(command: click.Command, context: click.Context, path: str = "") -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield path
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        inside = click.Context(below, parent=context, info_name=name)
        yield from leaves(below, inside, f"{path} {name}".strip())


def test_every_command_has_a_schema() -> None:
    commands = set(leaves(cli, click.Context(cli)))
    assert commands == {*OUTPUTS, *FOREIGN} - {"error"}


def test_the_schemas_are_those_of_the_types() -> None:
    assert FILE.read_text() == schemas.made(), "run scripts/docs"


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Session]:
    require("qemu-img", "bwrap")
    (tmp_path / "d.raw").write_bytes(pattern(1, 2 * MIB) + bytes(MIB))
    (tmp_path / "e.raw").write_bytes(pattern(2, 2 * MIB) + bytes(MIB))
    (tmp_path / "web.xml").write_text(DOMAIN.format(file=tmp_path / "d.raw"))
    for number in ("1.0.2", "1.0.3"):
        spec = SPEC.format(version=number, file=tmp_path / "d.raw")
        (tmp_path / f"{number}.yaml").write_text(spec)
    with Session.begun(tmp_path) as made:
        yield made


@pytest.mark.timeout(600)
def test_every_command_prints_what_its_schema_says(
    home: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = tuple(doctor.Check("x", status, "found") for status in doctor.Status)
    monkeypatch.setattr(doctor, "run", lambda _: checks)  # else it builds an appliance
    booted = Booted("login", 2, "web", first_boot=True, host_keys=("k",), failed=("unit",))
    monkeypatch.setattr(proof, "boot_version", lambda *_, **__: booted)
    VALIDATED.clear()
    for lines in (PREPARE, PUBLISH, RESOURCES, DEPLOY, SHARING, ACCESS, END):
        if lines is END:
            follow_runs(home)
            forget_secret(home)
        for line in lines.strip().splitlines():
            home.json(*line.split())
    for line in FAIL.strip().splitlines():
        status, *args = line.split()
        home.json(*args, status=int(status))
    (home.path / "state" / "galleria" / "catalog.db").unlink()
    home.json("catalog", "rebuild")
    home.run("schema")
    assert set(OUTPUTS) - VALIDATED == SLOW


def forget_secret(home: Session) -> None:
    (secret,) = home.json("principal", "credential", "list", "eve")["credentials"]
    home.json("principal", "credential", "delete", "eve", "--key-id", secret["keyId"])


def follow_runs(home: Session) -> None:
    newest = home.json("runs", "list", "--all")["runs"][0]["id"]
    home.json("runs", "show", newest)
    home.json("runs", "logs", newest)
    catalog = open_catalog(f"sqlite:///{home.path}/state/galleria/catalog.db")
    with contextlib.closing(catalog), catalog.write() as writer:
        writer.put_run(Run("abc", RunKind.GC, "/", writer.now(), RunState.WAITING))
    assert home.json("runs", "cancel", "abc")["run"]["state"] == "Cancelled"
    catalog = open_catalog(f"sqlite:///{home.path}/state/galleria/catalog.db")
    with contextlib.closing(catalog), catalog.write() as writer:
        name = parse_version("corp/pet/1.0.1").arm_id
        left = Run("abd", RunKind.REPLICATE, name, writer.now(), RunState.WAITING, token=0)
        writer.put_run(replace(left, request={"version": name}))
    assert home.json("runs", "resume", "abd")["run"]["state"] == "Succeeded"


PREPARE = f"""
init --region eu=eu --region us=us
init
config show
guide
guide gallery
gallery create corp --tags a=b --soft-delete true
gallery update corp --description x
gallery list
gallery show corp
definition create corp/pet --os-type Linux --os-state Specialized {IDENTIFIER}
definition update corp/pet --description x --minimum-cpu-core 2 --minimum-memory 512
definition show corp/pet
definition list corp
operations
operations logs
operations --profile minimal
vm list .
vm show web.xml
inspect d.raw --no-guest
hash d.raw
hash d.raw --chunks
convert d.raw --to vhd --out d.vhd
"""
PUBLISH = """
spec check 1.0.2.yaml
spec schema
plan 1.0.2.yaml
publish corp/pet/1.0.0 --os-disk d.raw --target-region eu --target-region us --dry-run
publish corp/pet/1.0.0 --os-disk d.raw --target-region eu --host-caching ReadOnly
publish corp/pet/1.0.1 --os-disk e.raw --data-disk 2=d.raw --target-region eu=2 --target-region us
build 1.0.2.yaml
build 1.0.2.yaml 1.0.3.yaml --jobs 1
plan 1.0.2.yaml
list
list corp/pet --limit 1
version list corp
show corp/pet
show corp/pet/1.0.1 --report --lineage
show corp/pet/1.0.1 --watch
version show corp/pet/1.0.0
version update corp/pet/1.0.0 --tags a=c --replica-count 2
replicate corp/pet/1.0.0 --region us
verify corp/pet/1.0.1
scrub corp --rate 900M
repair corp/pet
boot-check corp/pet/1.0.1
cost corp
diff corp/pet/1.0.0 corp/pet/1.0.1
promote corp/pet/1.0.1 --channel prod
definition show corp/pet
promote corp/pet --channel prod --remove
export corp/pet/1.0.0 --to qcow2 --out x.qcow2
export catalog corp/pet --out www
"""
RESOURCES = """
snapshot create --source d.raw --name s1 --os-type Linux
snapshot create --source d.raw --name s2 --incremental --tags a=b
snapshot list
snapshot show s1 --lineage
snapshot export s1 --out s1.qcow2
disk create --name k1 --source s1
disk create --name k2 --image-version corp/pet/1.0.1 --lun 2
disk create --name k3 --size-gb 1
disk list
disk show k1
disk show k2 --lineage
image create --name i1 --os-disk d.raw --data-disk 1=e.raw --no-generalize
image list
image show i1 --lineage
snapshot verify s1
disk verify k2 --scrub
disk verify k3
image verify i1
scrub --repair
disk delete k3
snapshot delete s2
image delete i1
"""
DEPLOY = """
deploy corp/pet/1.0.1 --region eu --name one --out vms
deploy corp/pet/1.0.1 --region eu --name two --count 2 --out vms
deployed list
deployed list corp/pet
show corp/pet/1.0.1
deployed release one two-1 two-2
scale-set create set --image corp/pet --region eu --out sets --count 1
scale-set scale set --count 2
scale-set update set --image corp/pet/1.0.2
scale-set show set
scale-set list
scale-set delete set
"""
SHARING = f"""
share show corp
gallery create open --permissions Groups
share add open --subscription-ids {GUID}
share show open
share remove open --subscription-ids {GUID}
share reset open
gallery create public --permissions Community
share enable-community public {COMMUNITY}
share set-permissions open Private
list-shared
list-community --show-next-marker
share reset public
"""
ACCESS = f"""
tenant create {GUID} --display-name x
tenant list
tenant show {GUID}
subscription create {GUID} --tenant {GUID}
subscription list
subscription show {GUID}
tenant show {GUID}
subscription delete {GUID}
tenant delete {GUID}
group create g1 --tags a=b
group list
group delete g1
principal create eve
principal create all --type Group --member eve
principal credential reset eve
principal credential list eve
principal list
role definitions
role assign --assignee eve --role Reader --scope corp
role list
role remove --assignee eve --role Reader --scope corp
principal delete all
audit list
audit list --denied
audit verify
catalog check
metrics
gc --dry-run
gc --grace 0s
catalog backup backup.db
runs list
runs list --all
"""
END = """
version delete corp/pet/1.0.3
list corp/pet --deleted
version undelete corp/pet/1.0.3
version delete corp/pet/1.0.3
version purge corp/pet/1.0.3
version delete corp/pet/1.0.2 --permanent
retention apply corp/pet --keep-last 1 --dry-run
retention apply corp/pet --keep-last 1
gallery create gone
gallery delete gone
gallery create gone
definition create gone/d --os-type Linux -p C -f o -s s
definition delete gone/d
gallery delete gone --cascade --dry-run
gallery delete gone --cascade --yes
catalog restore backup.db
"""
FAIL = """
4 show corp/nothing
2 gallery create a-b
1 validate e.raw
3 doctor
"""


def test_a_command_prints_its_own_schema_and_what_it_refers_to(home: Session) -> None:
    for command in OUTPUTS:
        document = json.loads(home.run("schema", *command.split()).stdout)
        Draft202012Validator.check_schema(document)
        Draft202012Validator(document).is_valid({})  # every reference leads somewhere
        assert document["$schema"].endswith("2020-12/schema")
    assert "did you mean" in home.run("schema", "gallry", "show", status=4).stderr


def test_a_stranger_in_a_document_is_seen(home: Session) -> None:
    home.run("init", "--region", "eu=eu")
    document = home.json("gallery", "create", "corp")
    document["gallery"]["strange"] = 1
    assert not validator("gallery create").is_valid({"schemaVersion": 1, **document})
