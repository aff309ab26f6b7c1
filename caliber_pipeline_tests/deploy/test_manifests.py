"""The deployment files: linted, in Kubernetes' own schemas where they hold pods, and their commands run for real.

Dagster's chart and KubeRay's definitions come from no package index, so nothing here renders the chart or asks a
cluster: keys are checked against dagster-ray's model of KubeRay, the launcher's and the instance's values by Dagster.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from caliber_pipeline.cli import build_parser
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings
from caliber_pipeline.settings import Settings

DEPLOY = Path(str(files("caliber_pipeline"))) / "deploy"
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
LOCATION: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
MANIFESTS = {name: yaml.safe_load((DEPLOY / name).read_text()) for name in ("raycluster.yaml", "rayjob.yaml")}


def test_the_dockerfile_and_the_yaml_files_are_linted() -> None:
    pytest.importorskip("yamllint", reason="the extra `dev` is not installed")
    beside = (Path(sys.executable).parent, Path(pytest.__file__).parents[4] / "bin")  # in a layered environment too
    found = shutil.which("hadolint", path=os.pathsep.join(map(str, beside)))
    if found is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([found, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    own = "line-length: {max: 120}, document-start: disable, comments: {min-spaces-from-content: 1}"
    rules = f"{{extends: default, rules: {{{own}}}}}"
    command = [sys.executable, "-m", "yamllint", "--strict", "-d", rules, *map(str, sorted(DEPLOY.glob("*.yaml")))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def pods_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_pods_of_ray_are_in_kubernetes_schema(name: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="the extra `dev` is not installed")
    for pod in pods_of(MANIFESTS[name]):
        resource = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "p"}, "template": pod}
        kubernetes_validate.validate(resource, "1.33", strict=True)


def test_what_the_chart_puts_into_pods_is_in_kubernetes_schema() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="the extra `dev` is not installed")
    container = {
        "name": LOCATION["name"],
        "image": f"{LOCATION['image']['repository']}:{LOCATION['image']['tag']}",
        "imagePullPolicy": LOCATION["image"]["pullPolicy"],
        "env": LOCATION["env"],
        "envFrom": [{"secretRef": secret} for secret in LOCATION["envSecrets"]],
        "resources": LOCATION["resources"],
        "volumeMounts": LOCATION["volumeMounts"],
    }
    spec = {
        "containers": [container],
        "volumes": LOCATION["volumes"],
        "securityContext": LOCATION["podSecurityContext"],
    }
    resource = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "p"}, "template": {"spec": spec}}
    kubernetes_validate.validate(resource, "1.33", strict=True)


def test_ray_s_manifests_have_only_keys_that_kuberay_knows() -> None:
    configs = pytest.importorskip("dagster_ray.kuberay.configs", reason="the extra `ray` is not installed")

    def keys(model: type) -> set[str]:
        return {_camel(name) for name in model.model_fields}  # type: ignore[attr-defined]

    cluster, job = MANIFESTS["raycluster.yaml"], MANIFESTS["rayjob.yaml"]
    assert {manifest["apiVersion"] for manifest in MANIFESTS.values()} == {"ray.io/v1"}
    assert set(cluster["spec"]) <= keys(configs.RayClusterSpec)
    assert set(job["spec"]) - {"entrypoint"} <= keys(configs.RayJobSpec)
    assert set(job["spec"]["rayClusterSpec"]) <= keys(configs.RayClusterSpec)
    for manifest in MANIFESTS.values():
        spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
        assert configs.AuthOptions(**spec["authOptions"]).mode == "token"
        assert set(spec["headGroupSpec"]) <= set(configs.DEFAULT_HEAD_GROUP_SPEC)
        for group in spec["workerGroupSpecs"]:
            assert set(group) <= set(configs.DEFAULT_WORKER_GROUP_SPECS[0])
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join("TLS" if part == "tls" else part.capitalize() for part in rest)


def test_the_job_s_command_and_the_versions_are_this_project_s() -> None:
    program, *arguments = MANIFESTS["rayjob.yaml"]["spec"]["entrypoint"].split()
    parsed = build_parser().parse_args(arguments)
    assert (program, parsed.backend, parsed.max_cost_usd) == ("caliber", "ray", 100)
    lines = (DEPLOY.parents[1] / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines if "==" in line)
    for manifest in MANIFESTS.values():
        assert manifest["spec"].get("rayClusterSpec", manifest["spec"])["rayVersion"] == pins["ray"]
    assert f"--version {pins['dagster']} " in (DEPLOY / "helm-values.yaml").read_text()


def test_the_variables_are_settings() -> None:
    known = {f"CALIBER_{name.upper()}" for name in Settings.model_fields} | set(OpenAIJudgeSettings.variables())
    given = {entry["name"]: entry["value"] for entry in LOCATION["env"]}
    assert set(given) <= known
    settings = Settings.from_env(given)
    mount = LOCATION["volumeMounts"][0]["mountPath"]
    assert all(str(path).startswith(mount) for path in (settings.output, settings.records, settings.criteria_dir))
    assert OpenAIJudgeSettings.from_env(given).max_cost_usd == 20


def test_the_image_s_user_may_write_to_the_claim() -> None:
    user = f"--uid {LOCATION['podSecurityContext']['fsGroup']} caliber"
    assert user in (DEPLOY / "Dockerfile").read_text()


def test_dagster_takes_the_instance_that_the_values_describe(tmp_path: Path) -> None:
    """The mapping is the chart's, from its names to those of `dagster.yaml`."""
    daemon = VALUES["dagsterDaemon"]
    monitoring = daemon["runMonitoring"]
    rendered = {
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": daemon["runCoordinator"]["config"]["queuedRunCoordinator"],
        },
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
        },
        "telemetry": VALUES["telemetry"],
    }
    assert not daemon["runRetries"]["enabled"]  # else the chart writes the key a second time
    assert not set(rendered) & set(VALUES["additionalInstanceConfig"])
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(rendered | VALUES["additionalInstanceConfig"]))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_enabled
        assert instance.run_monitoring_enabled
        limits = instance.get_concurrency_config()
        assert limits.pool_config.default_pool_limit == 1
        assert limits.run_queue_config is not None
        assert limits.run_queue_config.max_concurrent_runs == 4


def test_the_launcher_s_values_fit_dagster_s_launcher() -> None:
    launcher_module = pytest.importorskip("dagster_k8s.launcher", reason="the extra `deploy` is not installed")
    known = set(launcher_module.K8sRunLauncher.config_type())
    given = VALUES["runLauncher"]["config"][_first_lower(VALUES["runLauncher"]["type"])]
    snake = {"".join(f"_{c.lower()}" if c.isupper() else c for c in name) for name in given}
    assert snake - {"fail_pod_on_run_failure"} <= known
    assert "fail_pod_on_run_failure" in known


def _first_lower(name: str) -> str:
    return name[0].lower() + name[1:]


@pytest.mark.slow
def test_the_code_location_answers_under_the_arguments_of_the_values(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    dagster = [sys.executable, "-m", "dagster", "api"]
    server = subprocess.Popen(
        [*dagster, "grpc", "-h", "127.0.0.1", "-p", port, *LOCATION["dagsterApiGrpcArgs"]],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up_at = time.monotonic() + 120
        health = [*dagster, "grpc-health-check", "-p", port]  # the chart's readiness probe
        while subprocess.run(health, capture_output=True).returncode:
            assert server.poll() is None
            assert time.monotonic() < give_up_at
            time.sleep(1)
    finally:
        server.terminate()
        server.wait(30)
