"""The manifest for Kubernetes has the fields of KubeRay's RayJob, and a command that there is."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from whisper_max_backend.cli import main

MANIFEST = Path(__file__).parents[2] / "docs" / "corpora-kuberay.yaml"
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        **{"type": "object", "properties": properties, "required": list(required)},
        "additionalProperties": False,
    }


def listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
CONTAINER = fields(
    ("name", "image"),
    name=TEXT,
    image=TEXT,
    resources=fields((), limits=TEXTS, requests=TEXTS),
    volumeMounts=listed(fields(("name", "mountPath"), name=TEXT, mountPath=TEXT)),
)
CLAIM = fields(("claimName",), claimName=TEXT)
POD = fields(
    ("containers",),
    containers=listed(CONTAINER),
    volumes=listed(fields(("name",), name=TEXT, persistentVolumeClaim=CLAIM)),
)
TEMPLATE = fields(("spec",), spec=POD)
GROUP = fields(
    ("groupName", "template", "maxReplicas", "minReplicas"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=TEMPLATE,
)
CLUSTER = fields(
    ("headGroupSpec",),
    enableInTreeAutoscaling={"type": "boolean"},
    headGroupSpec=fields(("template",), rayStartParams=TEXTS, template=TEMPLATE),
    workerGroupSpecs=listed(GROUP),
)
JOB = fields(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=CLUSTER,
)
SCHEMA = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(("name",), name=TEXT),
    spec=JOB,
)
"""What the manifest may have of KubeRay 1.1's RayJob: names and types of its fields."""


def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text())


def test_its_fields_are_those_of_a_ray_job() -> None:
    jsonschema.validate(manifest(), SCHEMA)


@pytest.mark.parametrize("change", [{"maxReplicas": "8"}, {"gpus": 1}])
def test_another_field_is_noticed(change: dict[str, Any]) -> None:
    changed = copy.deepcopy(manifest())
    changed["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(change)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, SCHEMA)


def test_its_volumes_are_there() -> None:
    cluster = manifest()["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        there = {volume["name"] for volume in pod["volumes"]}
        assert {
            mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]
        } == there


def test_its_command_has_options_that_there_are() -> None:
    program, command, *given = shlex.split(manifest()["spec"]["entrypoint"])
    assert (program, command) == ("whisper-max", "corpus")
    told = CliRunner().invoke(main, ["corpus", "--help"]).output
    assert {option for option in given if option.startswith("--")} <= set(told.split())
