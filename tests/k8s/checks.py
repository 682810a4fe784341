"""What must hold of the rendered manifests. A check yields one sentence for each fault."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from pydantic import SecretStr

from gateway.settings import GatewaySettings
from generator_svc.settings import GeneratorSettings
from handscroll.errors import InvalidRequest
from launcher.prune import KEEP_DAYS
from svckit import client
from svckit.access import AccessSettings, check_hidden
from svckit.settings import Settings, StoreSettings
from svckit.store import S3Settings
from svckit.tls import TlsSettings
from tests.k8s.reach import STORE_USERS, network
from tests.k8s.rendered import (
    ROOT,
    Object,
    Pod,
    environment,
    matches,
    of_kind,
    one,
    pods,
)
from tiler_svc.settings import TilerSettings
from tokenizer_svc.settings import TokenizerSettings

Faults = Iterator[str]

SERVICES: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "tiler": TilerSettings,
    "tokenizer": TokenizerSettings,
    "generator": GeneratorSettings,
}
SECRETS = {
    "store": {"access_key", "secret_key"},
    "ray-token": {"auth_token"},
    "keys": {"keys.json"},
}
"""What docs/deploy.md has people make."""
DOORS = ("gateway", "tiler")
UNKNOWN_TO_KUBERNETES = ("ray.io", "monitoring.coreos.com")


def kubernetes_schemas(objects: list[Object]) -> Faults:
    """Every object of Kubernetes' own is one, with no field that Kubernetes does not know."""
    for each in objects:
        if each["apiVersion"].partition("/")[0] in UNKNOWN_TO_KUBERNETES:
            continue
        try:
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{_title(each)}: {error.message}"


def ray_schema(objects: list[Object]) -> Faults:
    """KubeRay knows every field of the cluster."""
    schema = json.loads((Path(__file__).parent / "raycluster.ray.io_v1.schema.json").read_text())
    _forbid_unknown(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(schema)
    clusters = list(of_kind(objects, "RayCluster"))
    if len(clusters) != 1:
        yield f"there must be one RayCluster, not {len(clusters)}"
    for each in clusters:
        for error in validator.iter_errors(each):
            yield f"{_title(each)}: {error.json_path}: {error.message}"


def ray_is_ours(objects: list[Object]) -> Faults:
    """The cluster runs the Ray that is in the image, and asks for the token."""
    spec = one(objects, "RayCluster", "ray")["spec"]
    tested = _found(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text())
    if spec["rayVersion"] != tested:
        yield f"rayVersion is {spec['rayVersion']}, constraints.txt has {tested}"
    if spec.get("authOptions") != {"mode": "token", "secretName": "ray-token"}:
        yield "Ray obeys whoever reaches it: authOptions must ask for the token"
    if spec["headGroupSpec"]["rayStartParams"].get("include-dashboard") != "false":
        yield "the dashboard must be off"
    for pod in pods(objects):
        for container in pod.containers:
            told = environment(objects, container)
            if pod.name == "generator" and "RAY_AUTH_TOKEN" not in told:
                yield f"{pod.name}/{container['name']} has no token of Ray's"
            if pod.name == "generator" and told.get("RAY_AUTH_MODE") != "token":
                yield f"{pod.name}/{container['name']} does not show Ray its token"


def ports(objects: list[Object]) -> Faults:
    """A Service's ports are those of its pods, and those that the settings say."""
    for service in of_kind(objects, "Service"):
        for pod in _selected(objects, {"matchLabels": service["spec"]["selector"]}):
            for port in service["spec"]["ports"]:
                target = port["targetPort"]
                number = pod.ports.get(target) if isinstance(target, str) else target
                if number != port["port"] or number not in pod.ports.values():
                    yield f"{_title(service)}: {port} leads to no such port of {pod.name}"
    for pod, settings in _services(objects):
        told = {"http" if pod.name == "gateway" else "grpc": settings.port}
        if metrics := getattr(settings, "metrics_port", None):
            told["metrics"] = metrics
        of_main = {port["name"]: port["containerPort"] for port in pod.main["ports"]}
        if of_main != told:
            yield f"{pod.name} has ports {of_main}, but its settings say {told}"
        if settings.host != "0.0.0.0":
            yield f"{pod.name} listens on {settings.host}, where no other pod reaches it"


def selectors(objects: list[Object]) -> Faults:
    """Whatever selects pods selects some, and whatever is named is there."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        if not matches(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"]):
            yield f"{_title(each)} does not select its own pods"
    for each in of_kind(objects, "Service", "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
        spec = each["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        if each["kind"] == "Service":
            selector = {"matchLabels": selector}
        found = _selected(objects, selector)
        if not found:
            yield f"{_title(each)} selects nothing"
        if each["kind"] == "Service" and len(found) > 1:
            yield f"{_title(each)} mixes {[pod.name for pod in found]}"
        for endpoint in spec.get("podMetricsEndpoints", []):
            if not all(endpoint["port"] in pod.ports for pod in found):
                yield f"{_title(each)}: not all of them have a port {endpoint['port']}"
    for each in of_kind(objects, "HorizontalPodAutoscaler"):
        try:
            scaled = one(objects, "Deployment", each["spec"]["scaleTargetRef"]["name"])
        except ValueError:
            yield f"{_title(each)} scales nothing"
        else:
            if "replicas" in scaled["spec"]:
                yield f"{_title(scaled)} sets the replicas that its autoscaler sets"
    accounts = {each["metadata"]["name"] for each in of_kind(objects, "ServiceAccount")}
    for pod in pods(objects):
        # KubeRay makes that of a head with an autoscaler.
        if pod.name != "ray-head" and pod.spec.get("serviceAccountName") not in accounts:
            yield f"{pod.name} has no account of its own"


def environment_names(objects: list[Object]) -> Faults:
    """Every HANDSCROLL_ variable is a setting, in its range, and names what is there."""
    for pod in pods(objects):
        for container in pod.containers:
            for name in environment(objects, container):
                if name.startswith("HANDSCROLL_") and name not in _known():
                    yield f"{pod.name}: {name} is no setting"
    try:
        read = _services(objects)
    except InvalidRequest as error:
        yield str(error)
        return
    services = {
        f"{each['metadata']['name']}:{port['port']}"
        for each in of_kind(objects, "Service")
        for port in each["spec"]["ports"]
    } | {"ray-head-svc:6379"}
    for pod, settings in read:
        for field in ("tiler", "tokenizer", "generator", "ray_address"):
            address = getattr(settings, field, None)
            if address is not None and address not in services:
                yield f"{pod.name}: {field} is {address}, where nobody is"
        if pod.name in STORE_USERS and not settings.store.url.startswith("s3://"):
            yield f"{pod.name} keeps its own store in {settings.store.url}"
        if isinstance(settings, TokenizerSettings):
            if "HANDSCROLL_TOKENIZER_WORKERS" not in environment(objects, pod.main):
                yield "the tokenizer would count the CPUs of the node"
    for pod in pods(objects):
        told = environment(objects, pod.main)
        if pod.name in STORE_USERS and "HANDSCROLL_STORE_S3_SECRET_KEY" not in told:
            yield f"{pod.name} has no key to the store"


def probes(objects: list[Object]) -> Faults:
    """Every container that stays is probed, where it listens, on a route that there is."""
    for pod in pods(objects):
        if pod.spec.get("restartPolicy") == "Never":
            continue
        for container in pod.containers:
            listens = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            sidecar = container in pod.spec.get("initContainers", [])
            for kind in ("startupProbe", "livenessProbe", *(["readinessProbe"] * (not sidecar))):
                probe = container.get(kind)
                where = f"{pod.name}/{container['name']}: {kind}"
                if probe is None:
                    yield f"{where} is missing"
                    continue
                ways = [probe[way] for way in ("httpGet", "grpc", "tcpSocket") if way in probe]
                for way in ways:
                    if way["port"] not in listens and way["port"] not in listens.values():
                        yield f"{where} asks port {way['port']}, where nobody listens"
                if path := probe.get("httpGet", {}).get("path"):
                    if path not in _routes():
                        yield f"{where} asks for {path}, which is no route"
                if pod.name in ("tiler", "tokenizer") and "grpc" not in probe:
                    yield f"{where} must ask by gRPC"


def restricted(objects: list[Object]) -> Faults:
    """PodSecurity's `restricted`, enforced and obeyed, and a root file system that is read only."""
    for namespace in of_kind(objects, "Namespace"):
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{_title(namespace)} does not enforce it"
    for pod in pods(objects):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{pod.name} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.name} has no seccomp profile"
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name} is given a token of Kubernetes'"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.name} is told variables that may collide with settings"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.name} has {field}"
        for volume in pod.spec.get("volumes", []):
            if not volume.keys() <= {"name", "emptyDir", "projected", "secret", "configMap"}:
                yield f"{pod.name}: volume {volume['name']} is of a kind that is not allowed"
        for container in pod.containers:
            name = f"{pod.name}/{container['name']}"
            yield from _careful(name, container)
            if "/tmp" not in [mount["mountPath"] for mount in container.get("volumeMounts", [])]:
                yield f"{name} can write nowhere"
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{name} takes a port of its node"
    for cluster in of_kind(objects, "RayCluster"):
        if cluster["spec"].get("enableInTreeAutoscaling"):
            yield from _careful("autoscaler", cluster["spec"].get("autoscalerOptions", {}))


def secrets(objects: list[Object]) -> Faults:
    """Secrets are referred to, never written down."""
    for each in of_kind(objects, "Secret"):
        yield f"{_title(each)} is in the manifests"
    secret_fields = {
        name for name, annotation in _known().items() if SecretStr in _parts(annotation)
    }
    assert secret_fields, "a setting that is secret is SecretStr"
    suspicious = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
    for each in of_kind(objects, "ConfigMap"):
        for name in each["data"]:
            # Where keys are is no secret.
            plain = name.replace("TOKENIZER", "").replace("KEYS_FILE", "")
            if name in secret_fields or suspicious.search(plain):
                yield f"{_title(each)} holds {name}"
    for pod in pods(objects):
        for container in pod.containers:
            for entry in container.get("env", []):
                if suspicious.search(entry["name"]) and "value" in entry:
                    yield f"{pod.name}: the value of {entry['name']} is written down"
                if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                    if reference["key"] not in SECRETS.get(reference["name"], ()):
                        yield f"{pod.name}: no such secret as {reference}"
        for volume in pod.spec.get("volumes", []):
            if "secret" in volume and volume["secret"]["secretName"] not in SECRETS:
                yield f"{pod.name}: no such secret as {volume['secret']}"


def access(objects: list[Object]) -> Faults:
    """Services start, strangers who come by an Ingress do not paint, and callers are told apart."""
    public = bool(list(of_kind(objects, "Ingress")))
    for pod, settings in _services(objects):
        if pod.name not in DOORS:
            try:
                check_hidden(settings.access, settings.tls, settings.host)
            except InvalidRequest as error:
                yield f"{pod.name}: {error}"
            continue
        file, anonymous = settings.access.keys_file, settings.access.anonymous
        if file is None and anonymous is None:
            yield f"{pod.name} does not start: nothing says who may come in"
        if public and anonymous not in ("none", "read"):
            yield f"{pod.name} paints for whoever comes by"
        if file is not None:
            secrets = {
                volume["name"]: volume["secret"]["secretName"]
                for volume in pod.spec["volumes"]
                if "secret" in volume
            }
            # A mount by subPath stays as it was when the Secret changes.
            held = {
                f"{mount['mountPath']}/{name}"
                for mount in pod.main["volumeMounts"]
                if "subPath" not in mount
                for name in SECRETS.get(secrets.get(mount["name"], ""), ())
            }
            if str(file) not in held:
                yield f"{pod.name} looks for keys in {file}, where no Secret is mounted"
        proxies = {"gateway": int(public), "tiler": 1}[pod.name]
        if settings.proxies != proxies:
            yield f"{pod.name} has {proxies} proxies before it, not {settings.proxies}"


def grace(objects: list[Object]) -> Faults:
    """A pod is given longer than it takes to leave."""
    for pod, settings in _services(objects):
        pause_s = pod.main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
        if not pause_s:
            yield f"{pod.name} stops while requests still come"
        elif pod.spec["terminationGracePeriodSeconds"] < pause_s + settings.drain_s + 5:
            yield f"{pod.name} is killed before its {settings.drain_s:g} s of draining are over"


def pruning(objects: list[Object]) -> Faults:
    """What can be made again goes some day, by the command that there is for it."""
    spec = one(objects, "CronJob", "prune")["spec"]
    if spec["concurrencyPolicy"] != "Forbid":
        yield "one that takes longer than a day would have company"
    (pod,) = (pod for pod in pods(objects) if pod.name == "prune")
    if pod.main["command"] != ["handscroll", "prune"]:
        yield f"prune runs {pod.main['command']}"
    told = environment(objects, pod.main)
    if not told.get(KEEP_DAYS, "").isdecimal():
        yield f"{KEEP_DAYS} must be a number of days, not {told.get(KEEP_DAYS)}"
    if not told.get("HANDSCROLL_STORE_URL", "").startswith("s3://"):
        yield f"prune looks into {told.get('HANDSCROLL_STORE_URL')}, which is no store of services"


def painters(objects: list[Object]) -> Faults:
    """Ray has a CPU for every painter, and a rollout frees those that it needs."""
    deployment = one(objects, "Deployment", "generator")["spec"]
    (settings,) = (found for pod, found in _services(objects) if pod.name == "generator")
    assert isinstance(settings, GeneratorSettings)
    wanted = deployment["replicas"] * settings.painters
    spec = one(objects, "RayCluster", "ray")["spec"]
    room = sum(
        group["maxReplicas"] * _room(group["rayStartParams"], settings.painter_gpus)
        for group in spec["workerGroupSpecs"]
    )
    if not 0 < wanted <= room:
        yield f"{wanted} painters are asked for, and Ray has room for {room}"
    if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield "painters would live on the head"
    for group in spec["workerGroupSpecs"]:
        requested = group["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"]
        if _mib(requested) < 600 * int(group["rayStartParams"]["num-cpus"]) + 400:
            yield f"{requested} are too little for {group['rayStartParams']['num-cpus']} painters"
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus = group["rayStartParams"].get("num-gpus", "0")
        if limits.get("nvidia.com/gpu", "0") != gpus:
            yield f"Ray is told of {gpus} GPUs, and the pod of {group['groupName']} has others"
    if deployment["strategy"]["rollingUpdate"]["maxSurge"] != 0:
        yield "a new generator would wait for the CPUs of the old one"


def _room(start: dict[str, str], share: float) -> int:
    """Painters that a worker started like this takes, if each holds this share of a GPU."""
    cpus, gpus = int(start["num-cpus"]), int(start.get("num-gpus", "0"))
    return min(cpus, int(gpus / share)) if share else cpus


def resources(objects: list[Object]) -> Faults:
    """Every container says what it needs, and cannot take all of a node's memory."""
    for pod in pods(objects):
        for container in pod.containers:
            given = container.get("resources", {})
            asked, most = given.get("requests", {}), given.get("limits", {})
            if not {"cpu", "memory"} <= asked.keys() or "memory" not in most:
                yield f"{pod.name}/{container['name']} does not say what it needs"
            elif _mib(asked["memory"]) > _mib(most["memory"]):
                yield f"{pod.name}/{container['name']} asks for more memory than it may have"
    for pod, settings in _services(objects):
        if isinstance(settings, GatewaySettings):
            needed = settings.cache_bytes / 2**20 + 150
            if _mib(pod.main["resources"]["requests"]["memory"]) < needed:
                yield f"{pod.name} needs {needed:.0f} MiB"


def image(objects: list[Object]) -> Faults:
    """All that is ours runs one image, with CUDA or not: painters are sent between processes."""
    names = {
        container["image"].removesuffix("-cuda")
        for pod in pods(objects)
        if pod.name != "store"
        for container in pod.containers
    }
    if len(names) != 1:
        yield f"there must be one image, not {sorted(names)}"
    version = _found(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text())
    for name in names:
        if not name.endswith(f":{version}"):
            yield f"{name} is not of version {version}"


def ingress(objects: list[Object]) -> Faults:
    """The world reaches routes that are meant for it, by TLS, under a name that is answered to."""
    (gateway,) = (found for pod, found in _services(objects) if pod.name == "gateway")
    assert isinstance(gateway, GatewaySettings)
    for each in of_kind(objects, "Ingress"):
        secured = {host for tls in each["spec"].get("tls", []) for host in tls["hosts"]}
        for rule in each["spec"]["rules"]:
            if rule["host"] not in secured:
                yield f"{_title(each)}: {rule['host']} has no certificate"
            if gateway.public_url != f"https://{rule['host']}":
                yield f"{_title(each)}: the gateway does not answer to {rule['host']}"
            public = {entry["path"]: entry["pathType"] for entry in rule["http"]["paths"]}
            for entry in rule["http"]["paths"]:
                backend = entry["backend"]["service"]
                if backend != {"name": "gateway", "port": {"name": "http"}}:
                    yield f"{_title(each)}: {entry['path']} leads to {backend}"
            for route in [*_routes(), "/static/main.js"]:
                inside = route in ("/metrics", "/status", "/healthz", "/readyz")
                if _public(public, route) == inside:
                    yield f"{_title(each)}: {route} is {'public' if inside else 'out of reach'}"


def balancing(objects: list[Object]) -> Faults:
    """A Service has an address of its own just if clients do not spread their calls themselves."""
    spread = "round_robin" in json.dumps(client._SERVICE_CONFIG)
    for service in of_kind(objects, "Service"):
        if any(port["name"] == "grpc" for port in service["spec"]["ports"]):
            if (service["spec"].get("clusterIP") == "None") != spread:
                yield (
                    f"{_title(service)}: clusterIP must be None if svckit.client says round_robin, "
                    "and only then"
                )


CHECKS = [
    kubernetes_schemas,
    ray_schema,
    ray_is_ours,
    ports,
    selectors,
    environment_names,
    probes,
    restricted,
    secrets,
    access,
    network,
    grace,
    pruning,
    painters,
    resources,
    image,
    ingress,
    balancing,
]


def _services(objects: list[Object]) -> list[tuple[Pod, Settings]]:
    """Our services, each with its settings as it would read them."""
    found = []
    for pod in pods(objects):
        if pod.name in SERVICES:
            with mock.patch.dict(os.environ, environment(objects, pod.main), clear=True):
                found.append((pod, SERVICES[pod.name].read([])))
    return found


def _known() -> dict[str, Any]:
    """The types of all settings, by variable."""
    known: dict[str, Any] = {}
    for settings in SERVICES.values():
        prefix = str(settings.model_config["env_prefix"])
        known |= {
            f"{prefix}{name}".upper(): field.annotation
            for name, field in settings.model_fields.items()
            if name not in ("store", "access", "tls")
        }
    for shared in (AccessSettings, TlsSettings):
        prefix = str(shared.model_config["env_prefix"])
        known |= {
            f"{prefix}{name}".upper(): field.annotation
            for name, field in shared.model_fields.items()
        }
    prefix = str(StoreSettings.model_config["env_prefix"])
    known |= {f"{prefix}URL": str, KEEP_DAYS: int}
    return known | {
        f"{prefix}S3_{name}".upper(): field.annotation
        for name, field in S3Settings.model_fields.items()
    }


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The types that a union is made of."""
    return getattr(annotation, "__args__", (annotation,))


def _routes() -> list[str]:
    contract = yaml.safe_load((ROOT / "gateway/openapi.yaml").read_text())
    return list(contract["paths"])


def _public(paths: dict[str, str], route: str) -> bool:
    """Whether an Ingress lets a route through."""
    return any(
        route == path or (kind == "Prefix" and f"{route}/".startswith(f"{path.rstrip('/')}/"))
        for path, kind in paths.items()
    )


def _selected(objects: list[Object], selector: Object) -> list[Pod]:
    return [pod for pod in pods(objects) if matches(selector, pod.labels)]


def _careful(name: str, container: Object) -> Faults:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may gain privileges"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name} may write to its root file system"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} has capabilities"
    if context.get("privileged") or context.get("runAsNonRoot") is False:
        yield f"{name} is privileged"


def _forbid_unknown(schema: Any) -> None:
    if isinstance(schema, list):
        for each in schema:
            _forbid_unknown(each)
    elif isinstance(schema, dict):
        if schema.pop("x-kubernetes-int-or-string", False):
            schema["type"] = ["integer", "string"]
            schema.pop("anyOf", None)
        if isinstance(schema.get("properties"), dict):
            schema.setdefault("additionalProperties", False)
            for each in schema["properties"].values():
                _forbid_unknown(each)
        for key in ("items", "additionalProperties"):
            _forbid_unknown(schema.get(key))


def _mib(quantity: str) -> float:
    number, unit = quantity[:-2], quantity[-2:]
    return float(number) * {"Mi": 1, "Gi": 1024}[unit]


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, pattern
    return match[1]


def _title(each: Object) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"
