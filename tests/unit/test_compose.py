"""The compose file, read only: what a person would find out too late."""

import re
from typing import Any

import pytest

from app.routing import WORKER_GROUPS
from app.settings import Settings
from tests.compose_file import REPOSITORY, read, seconds, services

SERVICES = services()
ONE_SHOT = {"migrate"}
LONG_RUNNING = sorted(SERVICES.keys() - ONE_SHOT)
SCALED = ("celery_worker", "celery_worker_bulk", "celery_beat")
OURS = ("migrate", *SCALED, "flower")
PORT = re.compile(r"127\.0\.0\.1:\d*:\d+")


def option(service: dict[str, Any], name: str) -> str | None:
    """What comes after ``name`` in the service's command."""
    command = [str(word) for word in service["command"]]
    return command[command.index(name) + 1] if name in command else None


@pytest.mark.parametrize("group", WORKER_GROUPS, ids=lambda group: group.name)
def test_a_worker_group_takes_from_the_queues_of_its_row(group: Any) -> None:
    named = option(SERVICES[group.name], "-Q")
    every_queue = WORKER_GROUPS[0].queues
    taken = tuple(named.split(",")) if named else every_queue
    assert taken == group.queues, (
        f"docker-compose.celery.yml, {group.name}: write -Q {','.join(group.queues)}"
    )


def test_there_is_no_other_worker() -> None:
    workers = {name for name, one in SERVICES.items() if "worker" in one.get("command", ())}
    assert workers == {group.name for group in WORKER_GROUPS}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert PORT.fullmatch(port), port


def test_every_host_port_is_a_variable_so_that_two_projects_can_run() -> None:
    text = (REPOSITORY / "docker-compose.celery.yml").read_text()
    ports = re.findall(r"127\.0\.0\.1:([^\"]*):\d+\"", text)
    assert ports
    assert [port for port in ports if not re.fullmatch(r"\$\{[A-Z]+_PORT:-\d*\}", port)] == []


@pytest.mark.parametrize("name", SCALED)
def test_a_scaled_service_holds_nothing_that_there_is_only_one_of(name: str) -> None:
    assert not {"ports", "container_name", "hostname", "network_mode"} & SERVICES[name].keys()


@pytest.mark.parametrize("name", [group.name for group in WORKER_GROUPS])
def test_who_stops_a_worker_waits_for_the_longest_task(name: str) -> None:
    limit = Settings.model_fields["task_time_limit_seconds"].default
    assert seconds(SERVICES[name]["stop_grace_period"]) > limit


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_service_has_a_health_check_and_is_started_again(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_migration_runs_once() -> None:
    assert SERVICES["migrate"]["restart"] == "no"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_takes_all_memory_or_fills_the_disk_with_logs(name: str) -> None:
    assert SERVICES[name]["mem_limit"]
    assert {"max-size", "max-file"} <= SERVICES[name]["logging"]["options"].keys()


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "user" not in service  # that of the image, which is not root


@pytest.mark.parametrize("name", OURS)
def test_commands_are_lists_so_that_no_shell_swallows_the_signals(name: str) -> None:
    assert isinstance(SERVICES[name]["command"], list)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_an_image_is_a_variable_with_a_tag_of_its_own_by_default(name: str) -> None:
    text = (REPOSITORY / "docker-compose.celery.yml").read_text()
    image = SERVICES[name]["image"]
    assert re.search(rf"\$\{{[A-Z]+_IMAGE:-{re.escape(image)}\}}", text)
    assert not image.endswith(":latest")
    assert ":" in image


def test_redis_keeps_what_it_has_taken() -> None:
    redis = SERVICES["redis"]
    assert option(redis, "--appendonly") == "yes"
    assert option(redis, "--appendfsync") == "everysec"
    assert option(redis, "--maxmemory-policy") == "noeviction"
    assert redis["volumes"] == ["redis:/data"]


def test_redis_may_double_its_memory_while_it_rewrites_its_file() -> None:
    def megabytes(size: str) -> int:
        return int(size.rstrip("mb"))

    redis = SERVICES["redis"]
    assert megabytes(redis["mem_limit"]) >= 2 * megabytes(option(redis, "--maxmemory") or "0")


def test_the_readme_s_redis_is_this_one() -> None:
    default = Settings.model_fields["redis_url"].default.get_secret_value()
    port = default.rpartition(":")[2].partition("/")[0]
    assert SERVICES["redis"]["ports"] == [f"127.0.0.1:{port}:6379"]
    assert "depends_on" not in SERVICES["redis"]  # `up -d redis` starts nothing else


def test_the_settings_of_the_containers_are_settings() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for name in OURS:
        given = SERVICES[name]["environment"].keys()
        assert {key for key in given if not key.startswith("FLOWER_")} <= known, name


@pytest.mark.parametrize("name", SCALED)
def test_nothing_works_on_a_schema_that_is_behind(name: str) -> None:
    needs = SERVICES[name]["depends_on"]
    assert needs["migrate"]["condition"] == "service_completed_successfully"
    assert needs["redis"]["condition"] == "service_healthy"


def test_prometheus_scrapes_every_worker_and_beat() -> None:
    jobs = read("scripts/monitoring/prometheus.yml")["scrape_configs"]
    asked = {
        (name, found["port"])
        for job in jobs
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    worker = Settings.model_fields["metrics_port"].default
    beat = Settings.model_fields["beat_metrics_port"].default
    assert asked == {(group.name, worker) for group in WORKER_GROUPS} | {("celery_beat", beat)}


def test_the_stand_ins_stand_for_the_images_of_the_compose_file() -> None:
    rows = re.findall(
        r"^([A-Z]+_IMAGE) +(\S+) +\S+$",
        (REPOSITORY / "scripts/build_images").read_text(),
        re.MULTILINE,
    )
    assert len(rows) >= 4
    used = (REPOSITORY / "docker-compose.celery.yml").read_text()
    for variable, public in rows:
        assert f"${{{variable}:-{public}}}" in used
