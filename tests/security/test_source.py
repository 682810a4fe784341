"""What stands nowhere in the code that serves, whatever anybody writes there one day."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from packaging.requirements import Requirement
from packaging.version import Version

from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from handscroll_api.tiler.v1 import tiler_service_pb2 as tiler_pb
from handscroll_api.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb

ROOT = Path(__file__).parents[2]
SERVING = ("gateway", "generator_svc", "handscroll", "svckit", "tiler_svc", "tokenizer_svc")
SHIPPED = (*SERVING, "launcher", "training")

MODULES = {
    "pickle": "runs what it reads",
    "_pickle": "runs what it reads",
    "cPickle": "runs what it reads",
    "cloudpickle": "runs what it reads",
    "dill": "runs what it reads",
    "joblib": "runs what it reads",
    "shelve": "runs what it reads",
    "marshal": "runs what it reads",
    "xml": "expands what it reads",
}
HTTP_CLIENTS = ("aiohttp", "httpx", "http.client", "requests", "urllib.request", "urllib3")
CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "runs text",
    "__import__": "runs what is named",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "tempfile.mktemp": "names a file that another may make",
    "yaml.load": "makes objects that a file names",
    "yaml.full_load": "makes objects that a file names",
    "yaml.unsafe_load": "makes objects that a file names",
    "yaml.load_all": "makes objects that a file names",
    "torch.hub.load": "runs what it fetches",
}


def faults(source: str, serving: bool = True) -> Iterator[str]:
    """What a module has that it must not have, each in a sentence.

    Args:
        source: of the module.
        serving: whether it is part of a service, and so may not even call others by HTTP.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from _imports([alias.name for alias in node.names], serving)
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from _imports([node.module or "", *named], serving)
            for name in named:
                if name in CALLS:
                    yield f"{name} {CALLS[name]}"
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            told = {one.arg: ast.unparse(one.value) for one in node.keywords}
            if name in CALLS:
                yield f"{name} {CALLS[name]}"
            if name == "torch.load" and (serving or told.get("weights_only") != "True"):
                yield "torch.load runs what it reads"
            if told.get("allow_pickle", "False") != "False":
                yield f"{name} runs what it reads"
            if told.get("shell", "False") != "False":
                yield f"{name} runs a shell"
            if serving and name.endswith("Image.open"):
                yield "Image.open: pictures are opened in one place, and with limits"


def _imports(names: list[str], serving: bool) -> Iterator[str]:
    for name in names:
        if name.partition(".")[0] in MODULES:
            yield f"{name} {MODULES[name.partition('.')[0]]}"
        if serving and any(name == one or name.startswith(f"{one}.") for one in HTTP_CLIENTS):
            yield f"{name}: services fetch nothing by HTTP"


def test_nothing_that_ships_runs_what_it_reads() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for package in SHIPPED
        for path in sorted((ROOT / package).rglob("*.py"))
        for fault in faults(path.read_text(), package in SERVING)
    ]
    opened = "handscroll/picture.py: Image.open: pictures are opened in one place, and with limits"
    # Makes the bucket, at an address that whoever deploys has named.
    assert set(found) == {opened, "svckit/bucket.py: urllib3: services fetch nothing by HTTP"}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib as safe",
        "def f():\n    from marshal import loads",
        "torch.load(path, weights_only=True)",
        "numpy.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=anything)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load",
        "eval('1')",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "from os import system",
        "import requests",
        "from urllib import request",
        "from urllib.request import urlopen",
        "import httpx",
        "PIL.Image.open(file)",
    ],
)
def test_planted_fault_is_found(planted: str) -> None:
    assert list(faults(planted))


def test_viewer_makes_no_page_out_of_text() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\(|new Function|"
        r"setAttribute\(\s*[\"']on|javascript:|DOMParser|createContextualFragment|setHTMLUnsafe"
    )
    scripts = sorted((ROOT / "gateway" / "static").glob("*.js"))
    assert len(scripts) > 5
    for script in scripts:
        assert not forbidden.search(script.read_text()), script.name
    page = (ROOT / "gateway" / "static" / "index.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "everything comes from here"


# Nobody can have us fetch something: there is no field to say what.

_PLACE = re.compile(r"(^|_)(url|uri|href|link|host|endpoint|address|webhook|callback|path|file)s?$")


def test_no_message_names_a_place_to_fetch_from() -> None:
    modules = (canvas_pb, generator_pb, status_pb, tiler_pb, tokenizer_pb)
    fields = {
        field.full_name
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        for field in _fields(method.input_type, set())
    }
    assert len(fields) > 40
    assert not [name for name in fields if _PLACE.search(name.rpartition(".")[2])]


def _fields(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    if message.full_name not in seen:
        seen.add(message.full_name)
        for field in message.fields:
            yield field
            if field.message_type is not None:
                yield from _fields(field.message_type, seen)


def test_no_request_names_a_place_to_fetch_from() -> None:
    told = yaml.safe_load((ROOT / "gateway" / "openapi.yaml").read_text())
    parameters = [
        each
        for item in told["paths"].values()
        for operation in (item, *(item[verb] for verb in ("get", "post", "delete") if verb in item))
        for each in operation.get("parameters", [])
    ]
    named = [_found(told, each) for each in parameters]
    wish = told["components"]["schemas"]["Wish"]["properties"]
    assert len(named) > 10 and len(wish) > 5
    for name, schema in (*((each["name"], each["schema"]) for each in named), *wish.items()):
        assert not _PLACE.search(name.lower().replace("-", "_")), name
        assert _found(told, schema).get("format") not in ("uri", "url", "uri-reference"), name


def _found(told: object, each: object) -> dict[str, object]:
    """What is told in place, or elsewhere in the document."""
    assert isinstance(each, dict)
    if "$ref" not in each:
        return each
    found: object = told
    for part in each["$ref"].removeprefix("#/").split("/"):
        assert isinstance(found, dict)
        found = found[part]
    return _found(told, found)


# Versions that are known to be broken are never installed.

MENDED = {
    "ray": ("2.56", "CVE-2023-48022, CVE-2025-62593, CVE-2026-27482, -32981, -41486, -57516"),
    "torch": ("2.6", "CVE-2025-32434"),
    "starlette": ("1.0.1", "CVE-2025-62727, CVE-2026-48710"),
    "grpcio": ("1.85", "CVE-2023-33953, -4785, -44487"),
}


@pytest.mark.parametrize("package", MENDED)
def test_lower_bound_is_above_what_was_broken(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {one.name: one for one in map(Requirement, project["dependencies"])}
    bounds = [Version(one.version) for one in asked[package].specifier if one.operator == ">="]
    assert bounds and max(bounds) >= Version(MENDED[package][0])
