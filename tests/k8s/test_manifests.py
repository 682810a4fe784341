"""Every overlay passes every check, and every check finds the faults planted for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import checks
from tests.k8s.checks import CHECKS, Faults
from tests.k8s.reach import network
from tests.k8s.rendered import OVERLAYS, Object, of_kind, one, render

Check = Callable[[list[Object]], Faults]
Plant = Callable[[list[Object]], Any]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_passes(overlay: str, check: Check) -> None:
    assert list(check(render(overlay))) == []


def spec(objects: list[Object], name: str, kind: str = "Deployment") -> Object:
    found: Object = one(objects, kind, name)["spec"]
    return found


def pod(objects: list[Object], name: str) -> Object:
    found: Object = spec(objects, name)["template"]["spec"]
    return found


def main(objects: list[Object], name: str) -> Object:
    found: Object = pod(objects, name)["containers"][0]
    return found


def job(objects: list[Object]) -> Object:
    found: Object = spec(objects, "prune", "CronJob")["jobTemplate"]["spec"]["template"]["spec"]
    return found


def volume(objects: list[Object], name: str, of: str) -> Object:
    found: Object
    (found,) = (one for one in pod(objects, name)["volumes"] if one["name"] == of)
    return found


def ray(objects: list[Object]) -> Object:
    return spec(objects, "ray", "RayCluster")


def worker(objects: list[Object]) -> Object:
    found: Object = ray(objects)["workerGroupSpecs"][0]
    return found


def settings(objects: list[Object]) -> dict[str, str]:
    (found,) = (one for one in of_kind(objects, "ConfigMap") if "dashboard.json" not in one["data"])
    data: dict[str, str] = found["data"]
    return data


def policy(objects: list[Object], name: str) -> Object:
    return spec(objects, name, "NetworkPolicy")


def without(objects: list[Object], kind: str, name: str) -> None:
    objects.remove(one(objects, kind, name))


def peer(component: str) -> Object:
    return {"podSelector": {"matchLabels": {"app.kubernetes.io/component": component}}}


PLANTS: list[tuple[Check, str, Plant]] = [
    (
        checks.kubernetes_schemas,
        "misspelt field",
        lambda o: main(o, "gateway").update(livenesProbe={}),
    ),
    (checks.kubernetes_schemas, "wrong type", lambda o: spec(o, "generator").update(replicas="2")),
    (checks.ray_schema, "misspelt field", lambda o: worker(o).update(maxReplica=3)),
    (checks.ray_schema, "wrong type", lambda o: worker(o).update(maxReplicas="3")),
    (
        checks.ray_schema,
        "misspelt field of a container",
        lambda o: worker(o)["template"]["spec"]["containers"][0].update(imagePolicy="Always"),
    ),
    (checks.ray_schema, "unknown mode", lambda o: ray(o).update(authOptions={"mode": "tokens"})),
    (checks.ray_schema, "no cluster", lambda o: without(o, "RayCluster", "ray")),
    (checks.ray_is_ours, "other version", lambda o: ray(o).update(rayVersion="2.59.0")),
    (checks.ray_is_ours, "no token", lambda o: ray(o).pop("authOptions")),
    (
        checks.ray_is_ours,
        "dashboard",
        lambda o: ray(o)["headGroupSpec"]["rayStartParams"].pop("include-dashboard"),
    ),
    (
        checks.ray_is_ours,
        "a node without the token",
        lambda o: pod(o, "generator")["initContainers"][0].pop("env"),
    ),
    (
        checks.ports,
        "of the Service",
        lambda o: spec(o, "tiler", "Service")["ports"][0].update(port=7000),
    ),
    (
        checks.ports,
        "of the container",
        lambda o: main(o, "tiler")["ports"][0].update(containerPort=7000),
    ),
    (checks.ports, "of the settings", lambda o: settings(o).update(HANDSCROLL_TILER_PORT="7000")),
    (
        checks.ports,
        "of the metrics",
        lambda o: settings(o).update(HANDSCROLL_GENERATOR_METRICS_PORT="9101"),
    ),
    (checks.ports, "loopback", lambda o: settings(o).pop("HANDSCROLL_TOKENIZER_HOST")),
    (
        checks.selectors,
        "Service",
        lambda o: spec(o, "tiler", "Service")["selector"].update({"app.kubernetes.io/name": "x"}),
    ),
    (
        checks.selectors,
        "Service of two",
        lambda o: spec(o, "tiler", "Service")["selector"].pop("app.kubernetes.io/component"),
    ),
    (
        checks.selectors,
        "Deployment",
        lambda o: spec(o, "tiler")["selector"]["matchLabels"].update({"a": "b"}),
    ),
    (
        checks.selectors,
        "budget",
        lambda o: spec(o, "ray-worker", "PodDisruptionBudget").update(
            selector={"matchLabels": {"ray.io/node-type": "wrong"}}
        ),
    ),
    (
        checks.selectors,
        "policy",
        lambda o: policy(o, "tiler").update(podSelector={"matchLabels": {"app": "tiler"}}),
    ),
    (
        checks.selectors,
        "autoscaler",
        lambda o: spec(o, "tiler", "HorizontalPodAutoscaler")["scaleTargetRef"].update(name="x"),
    ),
    (checks.selectors, "autoscaler's replicas", lambda o: spec(o, "tiler").update(replicas=2)),
    (
        checks.selectors,
        "monitor of pods",
        lambda o: spec(o, "services", "PodMonitor")["podMetricsEndpoints"][0].update(port="x"),
    ),
    (checks.selectors, "account", lambda o: without(o, "ServiceAccount", "tiler")),
    (
        checks.environment_names,
        "no setting",
        lambda o: settings(o).update(HANDSCROLL_TILER_QUALTY="80"),
    ),
    (
        checks.environment_names,
        "no setting of the store",
        lambda o: settings(o).update(HANDSCROLL_STORE_S3_BUCKET="x"),
    ),
    (
        checks.environment_names,
        "out of range",
        lambda o: settings(o).update(HANDSCROLL_TILER_QUALITY="101"),
    ),
    (
        checks.environment_names,
        "nobody there",
        lambda o: settings(o).update(HANDSCROLL_GATEWAY_TILER="tiller:7001"),
    ),
    (
        checks.environment_names,
        "a store of its own",
        lambda o: settings(o).pop("HANDSCROLL_STORE_URL"),
    ),
    (checks.environment_names, "no key", lambda o: main(o, "gateway").pop("env")),
    (
        checks.environment_names,
        "the node's CPUs",
        lambda o: settings(o).pop("HANDSCROLL_TOKENIZER_WORKERS"),
    ),
    (
        checks.probes,
        "no route",
        lambda o: main(o, "gateway")["livenessProbe"]["httpGet"].update(path="/health"),
    ),
    (
        checks.probes,
        "other port",
        lambda o: main(o, "tiler")["readinessProbe"]["grpc"].update(port=7002),
    ),
    (checks.probes, "missing", lambda o: main(o, "generator").pop("livenessProbe")),
    (
        checks.probes,
        "of Ray's missing",
        lambda o: worker(o)["template"]["spec"]["containers"][0].pop("readinessProbe"),
    ),
    (
        checks.probes,
        "not by gRPC",
        lambda o: main(o, "tiler").update(readinessProbe={"tcpSocket": {"port": 7001}}),
    ),
    (
        checks.restricted,
        "not enforced",
        lambda o: one(o, "Namespace", "handscroll")["metadata"].pop("labels"),
    ),
    (
        checks.restricted,
        "root",
        lambda o: pod(o, "tiler")["securityContext"].update(runAsNonRoot=False),
    ),
    (
        checks.restricted,
        "seccomp",
        lambda o: pod(o, "tiler")["securityContext"].pop("seccompProfile"),
    ),
    (
        checks.restricted,
        "token of Kubernetes",
        lambda o: pod(o, "tiler").pop("automountServiceAccountToken"),
    ),
    (checks.restricted, "service links", lambda o: pod(o, "tiler").pop("enableServiceLinks")),
    (checks.restricted, "network of the node", lambda o: pod(o, "tiler").update(hostNetwork=True)),
    (
        checks.restricted,
        "folder of the node",
        lambda o: pod(o, "tiler")["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    ),
    (
        checks.restricted,
        "privileges",
        lambda o: main(o, "tiler")["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    (
        checks.restricted,
        "capabilities",
        lambda o: main(o, "tiler")["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    ),
    (
        checks.restricted,
        "root file system",
        lambda o: main(o, "tiler")["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    (checks.restricted, "nothing to write to", lambda o: main(o, "tiler").pop("volumeMounts")),
    (
        checks.restricted,
        "sidecar",
        lambda o: pod(o, "generator")["initContainers"][0].pop("securityContext"),
    ),
    (
        checks.restricted,
        "Ray's worker",
        lambda o: worker(o)["template"]["spec"].pop("securityContext"),
    ),
    (
        checks.restricted,
        "Ray's autoscaler",
        lambda o: ray(o)["autoscalerOptions"].pop("securityContext"),
    ),
    (
        checks.secrets,
        "Secret",
        lambda o: o.append({"kind": "Secret", "metadata": {"name": "store"}, "apiVersion": "v1"}),
    ),
    (
        checks.secrets,
        "value",
        lambda o: main(o, "tiler")["env"].__setitem__(
            1, {"name": "HANDSCROLL_STORE_S3_SECRET_KEY", "value": "hunter2"}
        ),
    ),
    (
        checks.secrets,
        "in the settings",
        lambda o: settings(o).update(HANDSCROLL_STORE_S3_SECRET_KEY="hunter2"),
    ),
    (
        checks.secrets,
        "token in the settings",
        lambda o: settings(o).update(RAY_AUTH_TOKEN="0" * 32),
    ),
    (
        checks.secrets,
        "unknown reference",
        lambda o: main(o, "tiler")["env"][0]["valueFrom"]["secretKeyRef"].update(key="acess_key"),
    ),
    (
        checks.secrets,
        "unknown secret in a volume",
        lambda o: volume(o, "tiler", "keys").update(secret={"secretName": "key"}),
    ),
    (
        checks.access,
        "nothing said",
        lambda o: (
            settings(o).pop("HANDSCROLL_ACCESS_ANONYMOUS"),
            settings(o).pop("HANDSCROLL_ACCESS_KEYS_FILE"),
        ),
    ),
    (
        checks.access,
        "strangers paint",
        lambda o: settings(o).update(HANDSCROLL_ACCESS_ANONYMOUS="paint"),
    ),
    (
        checks.access,
        "behind the doors",
        lambda o: settings(o).pop("HANDSCROLL_ACCESS_TRUSTED_NETWORK"),
    ),
    (checks.access, "keys not mounted", lambda o: main(o, "tiler")["volumeMounts"].pop()),
    (
        checks.access,
        "keys elsewhere",
        lambda o: settings(o).update(HANDSCROLL_ACCESS_KEYS_FILE="/etc/keys.json"),
    ),
    (
        checks.access,
        "keys that do not follow",
        lambda o: main(o, "gateway")["volumeMounts"][-1].update(subPath="keys.json"),
    ),
    (
        checks.access,
        "one caller for all of a gateway's",
        lambda o: settings(o).pop("HANDSCROLL_TILER_PROXIES"),
    ),
    (
        checks.access,
        "one caller for all of the Ingress",
        lambda o: settings(o).pop("HANDSCROLL_GATEWAY_PROXIES"),
    ),
    (network, "no default", lambda o: without(o, "NetworkPolicy", "default-deny")),
    (network, "tiler uncovered", lambda o: without(o, "NetworkPolicy", "tiler")),
    (
        network,
        "default for what goes out only",
        lambda o: policy(o, "default-deny").update(policyTypes=["Egress"]),
    ),
    (
        network,
        "gateway to Ray",
        lambda o: (
            policy(o, "ray")["ingress"][0]["from"].append(peer("gateway")),
            policy(o, "gateway")["egress"].append({"to": [peer("ray-head")]}),
        ),
    ),
    (
        network,
        "everybody to Ray's head",
        lambda o: policy(o, "ray")["ingress"].append(
            {"ports": [{"protocol": "TCP", "port": 6379}]}
        ),
    ),
    (
        network,
        "dashboard",
        lambda o: policy(o, "ray")["ingress"].append(
            {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 8265}]}
        ),
    ),
    (
        network,
        "Ray Client",
        lambda o: policy(o, "ray")["ingress"][0]["ports"].append(
            {"protocol": "TCP", "port": 10000, "endPort": 10002}
        ),
    ),
    (
        network,
        "all of the same namespace",
        lambda o: policy(o, "tiler")["ingress"][0].update({"from": [{"podSelector": {}}]}),
    ),
    (
        network,
        "names of other namespaces",
        lambda o: policy(o, "tiler")["ingress"][0]["from"][0].update(namespaceSelector={}),
    ),
    (network, "private addresses", lambda o: without(o, "NetworkPolicy", "to-store")),
    (
        network,
        "no port",
        lambda o: policy(o, "generator")["ingress"][0]["ports"][0].update(port=7002),
    ),
    (network, "no DNS", lambda o: without(o, "NetworkPolicy", "all-to-dns")),
    (
        checks.grace,
        "too short",
        lambda o: pod(o, "tiler").update(terminationGracePeriodSeconds=25),
    ),
    (
        checks.grace,
        "longer drain",
        lambda o: settings(o).update(HANDSCROLL_GENERATOR_DRAIN_S="60"),
    ),
    (checks.grace, "no pause", lambda o: main(o, "gateway").pop("lifecycle")),
    (
        checks.pruning,
        "two at a time",
        lambda o: spec(o, "prune", "CronJob").update(concurrencyPolicy="Allow"),
    ),
    (
        checks.pruning,
        "another command",
        lambda o: job(o)["containers"][0].update(command=["handscroll", "serve"]),
    ),
    (checks.pruning, "no days", lambda o: settings(o).pop("HANDSCROLL_KEEP_DAYS")),
    (checks.pruning, "no number", lambda o: settings(o).update(HANDSCROLL_KEEP_DAYS="30d")),
    (checks.pruning, "no store", lambda o: settings(o).update(HANDSCROLL_STORE_URL="data")),
    (checks.environment_names, "no key to prune", lambda o: job(o)["containers"][0].pop("env")),
    (checks.restricted, "root prunes", lambda o: job(o).pop("securityContext")),
    (checks.painters, "too many", lambda o: settings(o).update(HANDSCROLL_GENERATOR_PAINTERS="9")),
    (checks.painters, "all", lambda o: settings(o).pop("HANDSCROLL_GENERATOR_PAINTERS")),
    (
        checks.painters,
        "a GPU that the pod has not",
        lambda o: worker(o)["rayStartParams"].update({"num-gpus": "1"}),
    ),
    (
        checks.painters,
        "GPUs asked for where there are none",
        lambda o: settings(o).update(HANDSCROLL_GENERATOR_PAINTER_GPUS="0.25"),
    ),
    (
        checks.painters,
        "on the head",
        lambda o: ray(o)["headGroupSpec"]["rayStartParams"].update({"num-cpus": "1"}),
    ),
    (
        checks.painters,
        "too little memory",
        lambda o: worker(o)["rayStartParams"].update({"num-cpus": "4"}),
    ),
    (
        checks.painters,
        "surge",
        lambda o: spec(o, "generator")["strategy"]["rollingUpdate"].update(maxSurge=1),
    ),
    (checks.resources, "none", lambda o: main(o, "tiler").pop("resources")),
    (
        checks.resources,
        "more than allowed",
        lambda o: main(o, "tiler")["resources"]["limits"].update(memory="64Mi"),
    ),
    (
        checks.resources,
        "a larger cache",
        lambda o: settings(o).update(HANDSCROLL_GATEWAY_CACHE_BYTES=str(2**31)),
    ),
    (checks.image, "another", lambda o: main(o, "tiler").update(image="handscroll:0.0.9")),
    (
        checks.image,
        "another of Ray's",
        lambda o: worker(o)["template"]["spec"]["containers"][0].update(image="rayproject/ray"),
    ),
    (checks.ingress, "no TLS", lambda o: spec(o, "gateway", "Ingress").pop("tls")),
    (
        checks.ingress,
        "another host",
        lambda o: settings(o).update(HANDSCROLL_GATEWAY_PUBLIC_URL="https://other.example.org"),
    ),
    (
        checks.ingress,
        "all routes",
        lambda o: spec(o, "gateway", "Ingress")["rules"][0]["http"]["paths"][0].update(
            pathType="Prefix"
        ),
    ),
    (
        checks.ingress,
        "a route missing",
        lambda o: spec(o, "gateway", "Ingress")["rules"][0]["http"]["paths"].pop(),
    ),
    (
        checks.ingress,
        "to Ray",
        lambda o: spec(o, "gateway", "Ingress")["rules"][0]["http"]["paths"][0].update(
            backend={"service": {"name": "ray-head-svc", "port": {"number": 8265}}}
        ),
    ),
    (
        checks.balancing,
        "not as clients call",
        lambda o: spec(o, "tiler", "Service").update(
            clusterIP=None if "clusterIP" in spec(o, "tiler", "Service") else "None"
        ),
    ),
]


@pytest.mark.parametrize(
    ("check", "plant"),
    [pytest.param(check, plant, id=f"{check.__name__}-{name}") for check, name, plant in PLANTS],
)
def test_planted_fault_is_found(check: Check, plant: Plant) -> None:
    objects = render("production")
    plant(objects)
    assert list(check(objects))


def test_every_check_is_shown_to_find_something() -> None:
    assert {check for check, _, _ in PLANTS} == set(CHECKS)
