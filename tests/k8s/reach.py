"""Who may reach whom under a set of network policies, as the Kubernetes documentation has it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from tests.k8s.rendered import NAMESPACE, Object, matches, of_kind, one, pods

STORE_USERS = ("gateway", "tiler", "generator", "prune")
RAY_NODES = ("generator", "ray-head", "ray-worker")
RAY_PORTS = (6379, 6380, 6381, 20500)
"""The GCS, raylets, and one of those of actors; others of Ray's must be out of reach."""
CLOSED_PORTS = (8265, 10001)


class Peer(NamedTuple):
    """Somebody on the network; outside of our namespace no policy of ours governs them."""

    name: str
    namespace: str
    namespace_labels: dict[str, str]
    labels: dict[str, str]
    ports: dict[str, int]
    address: str = "10.1.2.3"


DNS = Peer(
    "dns",
    "kube-system",
    {"kubernetes.io/metadata.name": "kube-system"},
    {"k8s-app": "kube-dns"},
    {},
)
OUTSIDERS = [
    DNS,
    Peer("ingress", "traefik", {"handscroll.ingress": "allowed"}, {}, {}),
    Peer("prometheus", "monitoring", {"handscroll.monitoring": "allowed"}, {}, {}),
    Peer("kube-system", "kube-system", DNS.namespace_labels, {}, {}),
    Peer("neighbour", "default", {}, {"app.kubernetes.io/component": "gateway"}, {}),
    Peer("internet", "", {}, {}, {}, "93.184.216.34"),
]
# Ours, but no part of what is deployed: what somebody has started beside it.
INTRUDER = Peer("intruder", NAMESPACE, {}, {"app": "intruder"}, {})


def network(objects: list[Object]) -> Iterator[str]:
    """Exactly these may reach each other, and nobody reaches Ray but its own nodes."""
    every = [7001, 7002, 7003, 8080, 8333, 9100, 53, 443, 6443, *RAY_PORTS, *CLOSED_PORTS]
    ours = {INTRUDER.name, *(pod.name for pod in pods(objects))}
    others = {peer.name for peer in OUTSIDERS}
    wanted = {
        ("ingress", "gateway", 8080),
        ("gateway", "tiler", 7001),
        ("tiler", "tokenizer", 7002),
        ("tiler", "generator", 7003),
        *((a, b, port) for a in RAY_NODES for b in RAY_NODES for port in RAY_PORTS),
        *((name, "dns", 53) for name in ours),
    }
    if "store" in ours:
        wanted |= {(name, "store", 8333) for name in STORE_USERS}
    else:
        wanted |= {(name, "internet", 443) for name in STORE_USERS}
    if any(of_kind(objects, "PodMonitor")):
        services = ("gateway", "tiler", "tokenizer", "generator")
        wanted |= {("prometheus", name, 9100) for name in services}
    out = {edge for edge in wanted if edge[0] in ours}
    if one(objects, "RayCluster", "ray")["spec"].get("enableInTreeAutoscaling"):
        # The API server, which may be anywhere; pods of ours would not let it in.
        out |= {("ray-head", name, port) for name in (*ours, *others) for port in (443, 6443)}
    for way, right in (
        ("Egress", out),
        ("Ingress", {edge for edge in wanted if edge[1] in ours}),
    ):
        found = set(allowed(objects, way, every))
        for source, target, port in sorted(found - right):
            yield f"{way} lets {source} reach {target}:{port}"
        for source, target, port in sorted(right - found):
            yield f"{way} does not let {source} reach {target}:{port}"


def allowed(objects: list[Object], way: str, ports: list[int]) -> Iterator[tuple[str, str, int]]:
    """All (from, to, TCP port), of these ports, that our pods let out (Egress) or in (Ingress).

    A connection needs both ends to agree. Each is looked at by itself, so that neither is left to
    the other.
    """
    ours = [Peer(pod.name, NAMESPACE, {}, pod.labels, pod.ports) for pod in pods(objects)]
    ours.append(INTRUDER)
    policies = list(of_kind(objects, "NetworkPolicy"))
    for subject in ours:
        for other in [*ours, *OUTSIDERS]:
            for port in ports:
                if _lets(policies, way, subject, other, port):
                    ends = (subject, other) if way == "Egress" else (other, subject)
                    yield ends[0].name, ends[1].name, port


def _lets(policies: list[Object], way: str, subject: Peer, other: Peer, port: int) -> bool:
    """Whether the policies that govern a peer let a connection out (Egress) or in (Ingress)."""
    governing = [
        policy["spec"]
        for policy in policies
        if way in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], subject.labels)
    ]
    listener = subject if way == "Ingress" else other
    rules = [rule for spec in governing for rule in spec.get(way.lower(), [])]
    return not governing or any(
        _meant(rule.get("from" if way == "Ingress" else "to"), other)
        and _open(rule.get("ports"), listener, port)
        for rule in rules
    )


def _meant(peers: list[Object] | None, other: Peer) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            address = ipaddress.ip_address(other.address)
            inside = address in ipaddress.ip_network(peer["ipBlock"]["cidr"])
            excepted = peer["ipBlock"].get("except", [])
            if inside and not any(address in ipaddress.ip_network(one) for one in excepted):
                return True
            continue
        if "namespaceSelector" in peer:
            near = bool(other.namespace) and matches(
                peer["namespaceSelector"], other.namespace_labels
            )
        else:
            near = other.namespace == NAMESPACE
        if near and matches(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _open(ports: list[Object] | None, listener: Peer, port: int) -> bool:
    if not ports:
        return True
    for each in ports:
        named = each["port"]
        first: int = listener.ports.get(named, -1) if isinstance(named, str) else named
        if each["protocol"] == "TCP" and first <= port <= each.get("endPort", first):
            return True
    return False
