"""The command `cache`."""

from __future__ import annotations

import click


@click.command("cache")
@click.option("--clear", is_flag=True, help="Remove what no process works on.")
def show_cache(clear: bool) -> None:
    """Show the folder of compiled graphs and packed weights, and what the next start removes.

    That is what killed processes have left, and what has not been used for 90 days.
    """
    from ..engine.compile.cache import cache_folder, contents, trusted_folder

    try:
        folder = trusted_folder()
    except FileNotFoundError as error:
        click.echo(f"nothing is compiled yet ({error})")
        return
    except OSError as error:
        raise click.ClickException(f"{cache_folder()} is not used: {error}") from error
    click.echo(folder)
    total = 0
    for entry in contents(folder):
        if clear:
            note = "removed" if entry.remove() else "in use"
        elif entry.idle:
            note = "goes at the next start"
        else:
            note = "in use" if entry.unfinished else ""
        row = f"{entry.size / 2**20:8.1f} MB {entry.unused:5.0f} days  {entry.path.name}  {note}"
        click.echo(row.rstrip())
        total += entry.size
    click.echo(f"{total / 2**20:8.1f} MB in all")
