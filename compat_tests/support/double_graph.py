"""The smallest graph that MAX compiles: its output is twice its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType

from whisper_max_backend.engine.compile.session import Session


def double_graph() -> Graph:
    """Not compiled yet."""
    with Graph("double", input_types=[TensorType(DType.float32, ["n"], DeviceRef.CPU())]) as graph:
        x = graph.inputs[0].tensor
        graph.output(x + x)
    return graph


def run(session: Session, compiled: Any) -> list[float]:
    """What the compiled graph makes of 1, 2 and 3."""
    (model,) = session.init_all(compiled).values()
    (result,) = model.execute(np.array([1, 2, 3], np.float32))
    return list(result.to_numpy())
