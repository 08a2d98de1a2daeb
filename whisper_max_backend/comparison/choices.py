"""What can be compared: backends that are usable here, with the precisions each has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..backends import Backend


@dataclass(frozen=True)
class Choice:
    """One side of a comparison."""

    backend: str
    device: str
    compute_type: str

    @property
    def label(self) -> str:
        """What people read, e.g. "max · int8" or, off the CPU, "max · float16 · cuda"."""
        parts = [self.backend, self.compute_type, *([self.device] if self.device != "cpu" else [])]
        return " · ".join(parts)


def usable_choices(
    backends: Iterable[Backend], names: Sequence[str] = (), compute_types: Sequence[str] = ()
) -> dict[str, Choice]:
    """Choices by label, in the order of the backends.

    Args:
        backends: All there are.
        names: Backends wanted; none means all that are usable.
        compute_types: Precisions wanted; none means all, and "auto".

    Raises:
        ValueError: A backend wanted does not exist or is not usable, or no precision is left.
    """
    known = {backend.name: backend for backend in backends}
    for name in names:
        if name not in known:
            raise ValueError(f"There is no backend '{name}' (there are: {', '.join(known)})")
    found: dict[str, Choice] = {}
    for name, backend in known.items():
        if names and name not in names:
            continue
        availability = backend.probe()
        if name in names and not availability.usable:
            raise ValueError(f"The backend '{name}' is not usable: {availability.reason}")
        for device, types in availability.devices.items():
            for compute_type in ("auto", *types):
                if not compute_types or compute_type in compute_types:
                    choice = Choice(name, device, compute_type)
                    found[choice.label] = choice
    if not found:
        raise ValueError(
            f"No backend here runs {' or '.join(compute_types)}: `whisper-max backends` lists what "
            "each runs"
        )
    return found


def first_selection(choices: Mapping[str, Choice]) -> list[str]:
    """Labels to begin with: the first two backends, the better one last; int8 where there is it.

    The first label is what the others are compared with.
    """
    selected: dict[str, str] = {}
    for wanted in ("int8", "auto", None):
        for label, choice in choices.items():
            if wanted in (choice.compute_type, None):
                selected.setdefault(choice.backend, label)
    order = list(dict.fromkeys(choice.backend for choice in choices.values()))
    labels = [selected[backend] for backend in reversed(order[:2])]
    return labels if len(labels) > 1 else list(choices)[:2]


def parse_choice(text: str, backends: Iterable[Backend]) -> Choice:
    """The choice that is written BACKEND, BACKEND:PRECISION or BACKEND:PRECISION:DEVICE.

    Without a precision it is the model's own ("default"), without a device the GPU if the backend
    has one to use, else the CPU.

    Raises:
        ValueError: There is no such backend, precision or device here.
    """
    known = {backend.name: backend for backend in backends}
    name, compute_type, device = [*text.split(":"), "", ""][:3]
    if text.count(":") > 2 or name not in known:
        raise ValueError(
            f"There is no backend '{text}': write NAME, NAME:PRECISION or NAME:PRECISION:DEVICE, "
            f"with one of {', '.join(known)}"
        )
    availability = known[name].probe()
    if not availability.usable:
        raise ValueError(f"The backend '{name}' is not usable: {availability.reason}")
    device = device or (
        "cuda" if "cuda" in availability.devices else next(iter(availability.devices))
    )
    choice = Choice(name, device, compute_type or "default")
    if not availability.runs(choice.device, choice.compute_type):
        offered = "; ".join(
            f"{device}: {', '.join(types)}" for device, types in availability.devices.items()
        )
        raise ValueError(f"The backend '{name}' has no '{text}' here (it has {offered})")
    return choice
