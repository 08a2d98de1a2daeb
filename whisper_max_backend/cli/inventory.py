"""The commands that list: `backends` and `plugins`."""

from __future__ import annotations

import json
from typing import Any

import click

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.command("backends")
@_AS_JSON
def list_backends(as_json: bool) -> None:
    """List the backends: what they run here, or why they do not."""
    from ..plugins import PluginError, backends

    try:
        found = backends().values()
    except PluginError as error:
        raise click.ClickException(str(error)) from error
    described: list[dict[str, Any]] = []
    for backend in found:
        availability = backend.probe()
        described.append(
            {
                "name": backend.name,
                "summary": backend.summary,
                "priority": backend.priority,
                "usable": availability.usable,
                "devices": {device: list(types) for device, types in availability.devices.items()},
                "reason": availability.reason,
                "kernels": dict(availability.kernels),
            }
        )
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    for entry in described:
        click.echo(f"{entry['name']}: {entry['summary']}")
        for device, types in entry["devices"].items():
            click.echo(f"  {device}: {', '.join(types)}")
            if device in entry["kernels"]:
                click.echo(f"    kernels for {entry['kernels'][device]}")
        if not entry["usable"]:
            click.echo(f"  not usable: {entry['reason']}")
        elif entry["reason"]:
            click.echo(f"  {entry['reason']}")


@click.command("plugins")
@_AS_JSON
def list_plugins(as_json: bool) -> None:
    """List the plugins, the built-in ones too, with their versions and hooks."""
    from ..plugins import PluginError, describe_plugins

    try:
        described = describe_plugins()
    except PluginError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    for entry in described:
        click.echo(
            f"{entry['name']} ({entry['distribution']} {entry['version']}): "
            f"{', '.join(entry['hooks'])}"
        )
