"""The files of examples/prometheus: Prometheus' own tool takes them, and they speak of metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mitmproxy_acme.admin.metrics import Exposition
from mitmproxy_acme.core.rate_limits import Limit, Limits
from tests.mitmproxy_acme.admin.test_metrics import exposed, filled, lively, rows_of
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import FakeIssuer
from tests.servers.promtool import promtool

_FOLDER = Path(__file__).resolve().parents[3] / "examples" / "prometheus"
_NAME = re.compile(r"\b(?:mitmproxy_acme|process)_\w+")


def yaml(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(_FOLDER / name)


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml("alerts.yml")["groups"]:
        yield from group["rules"]


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((_FOLDER / "grafana-dashboard.json").read_text())
    return read


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.fixture
async def exposition(make_manager: MakeManager, issuer: FakeIssuer) -> Exposition:
    """A scrape in which every metric has a sample."""
    issuer.limits = Limits(orders=Limit(300, 3 * 3_600.0))
    manager = make_manager(acme_certificates=("n000001.example.test",))
    return await exposed(lively(), manager, filled(manager, rows_of(2)))


def sample_names(exposition: Exposition) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in exposition.body.decode().splitlines() if not line.startswith("#")}


def test_configuration_is_valid(tmp_path: Path) -> None:
    """``promtool check config`` takes it, with its rules and the token's file, which is no more than named."""
    token = tmp_path / "token"
    token.write_text("a token")
    text = (_FOLDER / "prometheus.yml").read_text()
    assert "/etc/prometheus/mitmproxy-acme.token" in text
    (tmp_path / "alerts.yml").write_text((_FOLDER / "alerts.yml").read_text())
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/mitmproxy-acme.token", str(token)))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_alerts_are_valid() -> None:
    """``promtool check rules`` reads each of them."""
    assert f"{len(list(rules()))} rules found" in promtool("check", "rules", str(_FOLDER / "alerts.yml"))


def test_alerts_fire_when_they_should_and_only_then() -> None:
    """``promtool test rules`` runs them over series, and each alert is seen to fire and not to."""
    promtool("test", "rules", str(_FOLDER / "alerts_test.yml"))
    seen: dict[str, set[bool]] = {rule["alert"]: set() for rule in rules()}
    for group in yaml("alerts_test.yml")["tests"]:
        for case in group["alert_rule_test"]:
            seen[case["alertname"]].add(bool(case["exp_alerts"]))
    assert seen == {alert: {True, False} for alert in seen}


def test_alerts_say_what_to_do() -> None:
    """Each has a severity, a summary and a description of more than a line; the job is the one of the configuration."""
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert len(rule["annotations"]["description"]) > 120, rule["alert"]
    job = yaml("prometheus.yml")["scrape_configs"][0]["job_name"]
    assert f'job="{job}"' in (_FOLDER / "alerts.yml").read_text()


async def test_alerts_and_dashboard_name_only_metrics_that_there_are(exposition: Exposition) -> None:
    """Every name in an expression is one of a scrape; and every state, result and role that one selects is, too."""
    queries = [variable["definition"] for variable in dashboard()["templating"]["list"] if variable["type"] == "query"]
    texts = [rule["expr"] for rule in rules()] + expressions() + queries
    used = {name for text in texts for name in _NAME.findall(text)}
    assert len(used) > 25
    assert used - sample_names(exposition) == set()
    selected = {
        value
        for text in texts
        for values in re.findall(r'(?:state|result)!?=~?"([^"]+)"', text)
        for value in values.split("|")
    }
    body = exposition.body.decode()
    assert [value for value in selected if f'="{value}"' not in body] == []


async def test_dashboard_shows_all_that_there_is(exposition: Exposition) -> None:
    """Each metric of ours is in a panel, but for the one that only an alert needs."""
    families = set(re.findall(r"^# TYPE (mitmproxy_acme_\w+)", exposition.body.decode(), re.MULTILINE))
    shown = " ".join(expressions())
    unseen = {family for family in families if family not in shown}
    assert unseen == {"mitmproxy_acme_inventory_complete"}


async def test_reference_has_all_that_there_is(exposition: Exposition) -> None:
    """Each metric of ours is in its first column, and nothing else."""
    table = (_FOLDER.parents[1] / "docs/reference/metrics.md").read_text()
    listed = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    families = re.findall(r"^# TYPE mitmproxy_acme_(\w+)", exposition.body.decode(), re.MULTILINE)
    assert sorted(name for names in listed for name in names) == sorted(families)


def test_expressions_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    """Each of them, with Grafana's variables filled in, is a rule that Prometheus takes."""
    filled_in = {"$__rate_interval": "5m", "$__interval": "5m", "$job": ".+", "$instance": ".+"}
    found = []
    for number, text in enumerate(expressions()):
        for variable, value in filled_in.items():
            text = text.replace(variable, value)
        assert "$" not in text
        found.append({"record": f"panel:{number}", "expr": text})
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": found}]}))  # is YAML too
    assert f"{len(found)} rules found" in promtool("check", "rules", str(tmp_path / "rules.json"))


def test_dashboard_is_one_that_grafana_takes() -> None:
    """Its panels have unique ids, do not overlap, and use the chosen data source."""
    read = dashboard()
    assert read["schemaVersion"] >= 36
    assert "id" not in read, "an id is another Grafana's"
    ids = [panel["id"] for panel in read["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(x, y) for panel in read["panels"] for x, y in cells(panel["gridPos"])]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    assert {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]} == {"${datasource}"}
    assert [panel["title"] for panel in panels() if not panel["description"]] == []
    rows = [panel["title"] for panel in read["panels"] if panel["type"] == "row"]
    assert rows == ["Certificates", "Handshakes", "Orders", "CA", "Storage and nodes"]


def cells(place: dict[str, int]) -> list[tuple[int, int]]:
    return [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]
