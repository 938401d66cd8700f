"""The configuration: where it is found, what it refuses, and that it survives being written."""

from pathlib import Path

import pytest

from adapters.config import (
    Config,
    ConfigurationInvalid,
    ZonePlace,
    complete,
    load_config,
    load_principal,
    parse_regions,
    write_config,
)
from adapters.filesystem.profile import Writing
from pipeline.errors import Conflict, NotFound


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def load(tmp_path: Path, env: dict[str, str], text: str) -> Config:
    path = tmp_path / "galleria.toml"
    path.write_text(text)
    return load_config(path, env)


def test_without_a_file_the_defaults_hold(tmp_path: Path, env: dict[str, str]) -> None:
    config = load_config(None, env)
    assert config.regions == {}
    assert config.catalog == f"sqlite:///{tmp_path}/state/galleria/catalog.db"
    assert config.work == tmp_path / "state/galleria/work"
    assert config.logs == tmp_path / "state/galleria/logs"
    assert config.captures == tmp_path / "state/galleria/captures"
    assert config.cache == tmp_path / "cache/galleria"
    assert config.sandbox
    assert config.immutable
    assert config.origins == {}


def test_every_key_is_read(tmp_path: Path, env: dict[str, str]) -> None:
    config = load(
        tmp_path,
        env,
        """
        source_region = "US East"
        catalog = "postgresql+psycopg://me@db/galleria"
        work = "scratch"
        cache = "/var/cache/g"
        sandbox = false
        immutable = false
        max_virtual_size = "2 TiB"
        [regions]
        eu = "/srv/eu"
        "US East" = [{path = "/srv/us-a", premium = true}, "us-b"]
        slow = [{path = "/srv/slow", writing = "direct"}]
        """,
    )
    assert config.regions == {
        "eu": (ZonePlace(Path("/srv/eu")),),
        "US East": (ZonePlace(Path("/srv/us-a"), premium=True), ZonePlace(tmp_path / "us-b")),
        "slow": (ZonePlace(Path("/srv/slow"), writing=Writing.DIRECT),),
    }
    assert config.source_region == "US East"
    assert config.work == tmp_path / "scratch"
    assert (config.sandbox, config.immutable) == (False, False)
    assert config.max_virtual_size == 2 << 40
    assert set(config.origins.values()) == {str(tmp_path / "galleria.toml")}


def test_who_asks_is_no_part_of_what_everyone_shares(tmp_path: Path, env: dict[str, str]) -> None:
    path = tmp_path / "galleria.toml"
    config = load(tmp_path, env, 'principal = "ci"')
    assert not hasattr(config, "principal")
    assert config == load_config(None, env)
    assert config.origins == {}
    assert load_principal(path, env) == ("ci", str(path))
    env["GALLERIA_PRINCIPAL"] = "alice"
    assert load_principal(path, env) == ("alice", "GALLERIA_PRINCIPAL")
    del env["GALLERIA_PRINCIPAL"]
    assert load_principal(None, env) == ("", "default")


def test_the_first_region_is_the_source_region(tmp_path: Path, env: dict[str, str]) -> None:
    text = '[regions]\nus = "/us"\neu = "/eu"\n'
    assert load(tmp_path, env, text).source_region == "us"
    assert load(tmp_path, env, f'source_region = "EU"\n{text}').source_region == "eu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sandobx = true", "unknown key 'sandobx'"),
        ("max_virtual_size = true", "max_virtual_size is True, expected bytes"),
        ("sandbox = 'no'", "sandbox is 'no', expected true or false"),
        ("max_virtual_size = '2 TB'", "max_virtual_size is '2 TB', expected bytes"),
        ("libvirt = 'qemu+ssh://far/system'", "expected a libvirt of this host"),
        ("libvirt = '-c'", "expected a libvirt of this host"),
        ("max_virtual_size = 0", "max_virtual_size is 0, expected bytes"),
        ("catalog = 'catalog.db'", "catalog: expected a database URL"),
        ("catalog = 'sqlite:///catalog.db'", "catalog: expected a database URL"),
        ("work = ''", "work is '', expected a directory"),
        ("regions = ['/eu']", "regions is ['/eu'], expected a table"),
        ("[regions]\neu = []", "regions.eu is [], expected a list of directories"),
        ("[regions]\neu = [1]", "regions.eu is 1, expected a directory"),
        ("[regions]\n'e_/u' = '/eu'", "The region name 'e_' is invalid"),
        ("[regions]\n'e/u/x' = '/eu'", "The region name 'u/x' is invalid"),
        (f"[regions]\ne = '/a'\n'e/{'u' * 63}' = '/eu'", "have 64 characters at most"),
        ("[regions]\n'e/u' = '/eu'", "'e/u' is an edge zone of a region that is not there: 'e'"),
        (
            "source_region = 'e/u'\n[regions]\ne = '/a'\n'e/u' = '/eu'",
            "expected one of the regions: e",
        ),
        ("[regions]\n'eu west' = '/a'\nEUWest = '/b'", "region 'EUWest' is there twice"),
        ("[regions]\neu = '/a'\nus = '/b/../a'", "the directory /a is two zones"),
        ("source_region = 'us'\n[regions]\neu = '/a'", "expected one of the regions: eu"),
        ("sandbox = ", "not TOML"),
        ("work = '~nobody-has-this-name/work'", "work is '~nobody"),
        ('work = "/a\\u0000b"', "expected a directory"),
    ],
)
def test_mistakes_name_file_key_and_what_is_expected(
    tmp_path: Path, env: dict[str, str], text: str, message: str
) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        load(tmp_path, env, text)
    assert message in caught.value.message
    assert caught.value.message.startswith(str(tmp_path / "galleria.toml"))
    assert caught.value.exit_status == 2


def test_a_password_is_not_repeated(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        load(tmp_path, env, "catalog = 'sqlite:///relative?password=hunter2'")
    assert "hunter2" not in caught.value.message


def test_the_environment_wins(tmp_path: Path, env: dict[str, str]) -> None:
    env |= {
        "GALLERIA_SANDBOX": "false",
        "GALLERIA_REGIONS": "eu=/a 'uk south=/b,/c:premium'",
        "GALLERIA_MAX_VIRTUAL_SIZE": "1 GiB",
    }
    config = load(tmp_path, env, "max_virtual_size = 9\nsandbox = true\nimmutable = false\n")
    assert (config.sandbox, config.immutable, config.max_virtual_size) == (False, False, 1 << 30)
    assert config.regions == {
        "eu": (ZonePlace(Path("/a")),),
        "uk south": (ZonePlace(Path("/b")), ZonePlace(Path("/c"), premium=True)),
    }
    assert config.origins["sandbox"] == "GALLERIA_SANDBOX"
    assert config.origins["immutable"] == str(tmp_path / "galleria.toml")


def test_a_region_with_blanks_is_to_be_quoted(tmp_path: Path, env: dict[str, str]) -> None:
    env["GALLERIA_REGIONS"] = "uk south=/b"
    with pytest.raises(ConfigurationInvalid, match="'uk' is not NAME=DIRECTORY") as caught:
        load(tmp_path, env, "")
    assert "'UK South=/srv/uk'" in caught.value.hint


@pytest.mark.parametrize("variable", ["GALLERIA_SANDBOX", "GALLERIA_CATALOG", "GALLERIA_REGIONS"])
def test_a_bad_variable_is_named(env: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=variable):
        load_config(None, env | {variable: "perhaps"})


def test_a_file_that_was_named_must_exist(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml", env)
    with pytest.raises(NotFound, match=r"elsewhere\.toml"):
        load_config(None, env | {"GALLERIA_CONFIG": str(tmp_path / "elsewhere.toml")})


def test_the_users_file_is_found(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "config/galleria").mkdir(parents=True)
    (tmp_path / "config/galleria/config.toml").write_text("immutable = false")
    assert not load_config(None, env).immutable


def test_what_is_written_is_read_back(tmp_path: Path, env: dict[str, str]) -> None:
    zones = parse_regions(["eu=a,b", f'uk south={tmp_path}/c "d"é'], "--region", tmp_path)
    values = {"regions": zones, "source_region": "uk south", "work": tmp_path, "sandbox": False}
    config = complete(values, dict.fromkeys(values, "test"), env)
    path = tmp_path / "new" / "config.toml"
    write_config(config, path)
    assert load_config(path, env) == config
    with pytest.raises(Conflict, match="exists already"):
        write_config(config, path)
    write_config(complete({"regions": zones}, {}, env), path, force=True)
    assert load_config(path, env).source_region == "eu"


def test_regions_of_the_command_line(tmp_path: Path) -> None:
    for items in (["eu"], ["eu="], ["eu=/a", "eu=/b"], ["eu=/a,,"], ["=/a"]):
        with pytest.raises(ConfigurationInvalid, match="--region"):
            parse_regions(items, "--region", tmp_path)
