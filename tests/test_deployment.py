"""The examples that start the proxy: a container, its compose files, a systemd unit. They name what the code has.

``test_docs`` reads the ``config.yaml`` of each. Whether systemd takes the unit is seen where ``systemd-analyze`` is.
"""

import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.proxy.mode_specs import ReverseMode
from ruamel.yaml import YAML

from mitmproxy_acme.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "container"
COMPOSE = sorted(FOLDER.glob("*.compose.yaml"))
UNIT = ROOT / "examples" / "mitmproxy-acme.service"
# Of the compose specification, what the files use; a misspelt key would be an error of podman's and docker's.
_SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports"),
    *("read_only", "restart", "security_opt", "sysctls", "tmpfs", "volumes"),
}
_WORST_EXPOSURE = 2.0  # of 10, as systemd-analyze rates it; its OK ends above 4


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text())
    return found


def config_of(compose: Path) -> Path:
    return compose.with_name(compose.name.replace(".compose", ""))


@pytest.fixture(scope="module")
def recipe() -> dict[str, list[str]]:
    """Each instruction of the Containerfile, with its arguments, continued lines as one."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (FOLDER / "Containerfile").read_text(), flags=re.MULTILINE))
    found: dict[str, list[str]] = {}
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


# Container


def test_container_is_made_of_files_that_are_there(recipe: dict[str, list[str]]) -> None:
    assert recipe.keys() == {
        *("ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD")
    }
    sources = [word for line in recipe["COPY"] if not line.startswith("--from") for word in line.split()[:-1]]
    assert {"addons", "storage", "pyproject.toml", "constraints.txt"} <= {*sources}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_container_starts_a_command_of_ours_as_its_own_user(recipe: dict[str, list[str]]) -> None:
    assert recipe["ENTRYPOINT"] == ['["mitmproxy-acme"]']
    assert re.findall(r'"([^"]+)"', recipe["CMD"][0])[0] in COMMANDS
    (user,) = recipe["USER"]
    assert user != "0"
    assert f"--uid {user} " in recipe["RUN"][-1]


def test_container_keeps_what_mitmproxy_keeps(recipe: dict[str, list[str]]) -> None:
    """Its home has mitmproxy's folder, so that no command in it needs --confdir."""
    home = re.findall(r"HOME=(\S+)", recipe["ENV"][0])[0]
    assert recipe["VOLUME"] == [f"{home}/.mitmproxy"]
    assert f"--home-dir {home} " in recipe["RUN"][-1]


# Compose files


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_file_names_what_is_there(path: Path, recipe: dict[str, list[str]]) -> None:
    """Its keys, its volumes, the files that it mounts, and the recipe of the image."""
    document = read(path)
    assert {key for service in document["services"].values() for key in service} <= _SERVICE_KEYS
    build = document["services"]["proxy"]["build"]
    assert (path.parent / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Containerfile"
    mounts = [mount for service in document["services"].values() for mount in service.get("volumes", ())]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(".")}
    assert named == {*document["volumes"]}
    files = [path.parent / mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert config_of(path) in files
    assert [file for file in files if not file.is_file()] == []
    (folder,) = recipe["VOLUME"]
    assert f"./{config_of(path).name}:{folder}/config.yaml:ro" in mounts


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_file_agrees_with_its_configuration(path: Path) -> None:
    """Upstreams and the storage are services, secrets are passed, and each port that listens is published."""
    services, config = read(path)["services"], read(config_of(path))
    modes = [ReverseMode.parse(mode) for mode in config["mode"]]
    for mode in modes:
        assert isinstance(mode, ReverseMode)
        assert mode.address[0] in services
    secrets = re.findall(r"env:(\w+)", str(config))
    assert {*secrets} == {*services["proxy"].get("environment", {})}
    storage = re.search(r"@([\w.]+):6379", config.get("acme_storage", ""))
    assert storage is None or storage[1] in services
    published = next(service["ports"] for service in services.values() if "ports" in service)
    ports = {port for mode in modes if (port := mode.listen_port()) is not None}
    assert {int(port.split(":")[1]) for port in published if not port.endswith("/udp")} == ports
    health = " ".join(services["proxy"]["healthcheck"]["test"])
    assert f"http://{config['acme_admin_listen']}/health" in health


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_proxy_in_a_compose_file_has_no_rights(path: Path, recipe: dict[str, list[str]]) -> None:
    """No root, no capability, nothing to write but its volume; low ports by a setting of its own network."""
    proxy = read(path)["services"]["proxy"]
    assert proxy["cap_drop"] == ["ALL"]
    assert proxy["security_opt"] == ["no-new-privileges:true"]
    assert proxy["read_only"] is True
    assert proxy["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "0"}
    owned = [mount for mount in proxy["tmpfs"] if "uid=" in mount]
    assert all(f"uid={recipe['USER'][0]}" in mount for mount in owned)


def test_balancer_leads_to_every_replica() -> None:
    services = read(FOLDER / "three-nodes.compose.yaml")["services"]
    replicas, text = services["proxy"]["deploy"]["replicas"], (FOLDER / "balancer.cfg").read_text()
    assert re.findall(r"server-template \w+ (\d+) (\w+):(\d+)", text) == [
        (str(replicas), "proxy", "443"),
        (str(replicas), "proxy", "80"),
    ]


# systemd


@pytest.fixture(scope="module")
def unit() -> ConfigParser:
    found = ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # how it is told to keep the case
    found.read(UNIT)
    return found


def test_systemd_unit_starts_a_command_of_ours(unit: ConfigParser) -> None:
    assert unit.sections() == ["Unit", "Service", "Install"]
    program, command, *options = shlex.split(unit["Service"]["ExecStart"])
    assert program == "/opt/mitmproxy-acme/.venv/bin/mitmproxy-acme"
    assert command in COMMANDS
    assert options == ["--set", f"confdir=/var/lib/{unit['Service']['StateDirectory']}"]


def test_systemd_unit_has_one_capability_and_no_root(unit: ConfigParser) -> None:
    service = unit["Service"]
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "true"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on PATH")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With programs that are there it has nothing to say about it, and rates it as well confined as the file says."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/mitmproxy-acme/.venv/bin/mitmproxy-acme", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", copy], capture_output=True, text=True
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert exposure
    assert float(exposure[1]) < _WORST_EXPOSURE
