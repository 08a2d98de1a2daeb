"""Whether a GPU does rightly what its tensor cores are made to do: asked of the card itself.

Where it did not, the text would be wrong without any error. So whenever a model is loaded, the card
has to show that the kernels for tensor cores give what kernels give that do without; and a Hopper,
that its own products, and kernels that begin before the ones before them have ended, give what
those for older cards give.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, TensorValue, ops

from ..compile.artifacts import ArtifactSpec, compiled
from ..compile.session import LoadedGraph, Session
from ..graphs.ops import new_graph
from ..state.device_locks import locks_of
from .graphs.attention import cross_attention, self_attention
from .graphs.layers import AMPERE, FEW_ROWS, HOPPER, THREADS, Layers
from .weights import on_device

SHAPES = ((1500, 384, 2816), (200, 328, 270), (20, 328, 270), (5, 328, 270))
"""Rows, depth and columns: each kernel for another number of rows, and parts of tiles."""
TOLERANCE = 1e-4
"""Of sums in float32, relative to the largest: tensor cores add in an order of their own."""
HALF_TOLERANCE = 0.02
"""Of what was rounded to a half type on the way."""
WIDTH, ROWS = 512, 5
"""Of a step, of few rows."""
CHAIN, REPEATS = 16, 8
"""Kernels of which each needs what the one before it wrote, and how often they are executed."""
HEADS, HEAD_SIZE, CONTEXT, FRAMES = 2, 64, 448, 1500
"""Of attention."""

_log = logging.getLogger("whisper_max_backend")


def newest(device: Device, dtype: DType) -> int:
    """The newest generation of tensor cores whose kernels for `dtype` a device may run."""
    if device.api != "cuda" or dtype == DType.float32:
        return THREADS
    return HOPPER if device.architecture_name in {"sm_90", "sm_90a"} else AMPERE


def proven(device: Device, dtype: DType, session: Session) -> int:
    """The generation of tensor cores whose kernels a device runs rightly; logs what fails."""
    wanted = newest(device, dtype)
    if wanted == THREADS:
        return THREADS
    graphs = session.init_all(compiled(**proof_artifact(device, dtype, session, wanted)))
    with locks_of(device).beside:
        if not tensor_cores_agree(graphs, device, dtype):
            found, fault = THREADS, "computes wrongly with its tensor cores"
        elif wanted == AMPERE:
            return AMPERE
        elif not products_agree(graphs["warpgroups"], device, dtype):
            found, fault = AMPERE, "multiplies wrongly with warpgroups"
        elif not chains_agree(graphs["chains"], device, dtype):
            found, fault = AMPERE, "begins kernels too early"
        else:
            return HOPPER
    _log.warning(
        "%s %s; %s are used. Another driver may mend this.",
        device,
        fault,
        "much slower kernels without" if found == THREADS else "the slower kernels of older GPUs",
    )
    return found


def tensor_cores_agree(graphs: Mapping[str, LoadedGraph], device: Device, dtype: DType) -> bool:
    """Whether products, steps and attention are what they are without tensor cores."""
    return (
        products_agree(graphs["products"], device, dtype)
        and steps_agree(graphs["steps"], device, dtype)
        and attention_agrees(graphs["attention_of_steps"], device, dtype, tokens=1)
        and attention_agrees(graphs["attention_of_prompts"], device, dtype, tokens=11)
    )


def products_agree(graph: LoadedGraph, device: Device, dtype: DType) -> bool:
    """Whether both kinds of products have the same results, on random numbers."""
    draw = _drawing(device)
    for rows, depth, columns in SHAPES:
        made = graph.execute(draw((1, rows, depth), dtype), draw((columns, depth), dtype))
        if not _agree(made, TOLERANCE):
            return False
    return True


def steps_agree(graph: LoadedGraph, device: Device, dtype: DType) -> bool:
    """Whether both kinds of kernels make the same feed-forward of few rows, also in int8."""
    draw = _drawing(device)
    random = np.random.default_rng(1)
    # They are drawn once: a load should not wait for many millions of random numbers.
    matrices = [
        draw(shape, dtype, WIDTH**-0.5) for shape in ((4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))
    ]
    integers = [random.integers(-128, 128, one.shape, np.int8) for one in matrices]
    scales = [np.full(len(one), WIDTH**-0.5 / 74, np.float32) for one in integers]
    quantized = [Buffer.from_numpy(array).to(device) for array in (*integers, *scales)]
    for _ in range(REPEATS):
        vectors = draw((1, ROWS, WIDTH)), draw((4 * WIDTH,))
        made = graph.execute(*vectors, *matrices, *quantized)
        if not _agree(made, HALF_TOLERANCE):
            return False
    return True


def attention_agrees(graph: LoadedGraph, device: Device, dtype: DType, tokens: int) -> bool:
    """Whether both kinds of attention have the same results, of `tokens` new tokens a row."""
    draw = _drawing(device)
    random = np.random.default_rng(2)
    width = HEADS * HEAD_SIZE
    for items, beams in ((1, 1), (1, ROWS), (3, 1)):
        rows, position = items * beams, int(random.integers(CONTEXT - tokens))
        slots = random.integers(0, rows, (rows, CONTEXT))
        slots[:, position:] = np.arange(rows)[:, None]  # what is new goes to the rows' own
        integers = (slots, np.full(rows, position), np.arange(items) % 2)
        made = graph.execute(
            draw((1, 2, rows, CONTEXT, width), dtype),
            draw((1, 2, FRAMES, 2 * width), dtype),
            *(Buffer.from_numpy(array.astype(np.int32)).to(device) for array in integers),
            draw((items, beams * tokens, 3 * width), dtype, 2),
            draw((items, beams * tokens, width), dtype, 2),
        )
        if not _agree(made, HALF_TOLERANCE):
            return False
    return True


def chains_agree(graph: LoadedGraph, device: Device, dtype: DType) -> bool:
    """Whether kernels that begin early give the very numbers of those that do not."""
    draw = _drawing(device)
    for _ in range(REPEATS):
        matrix = draw((WIDTH, WIDTH), dtype, WIDTH**-0.5)
        if not _agree(graph.execute(draw((1, ROWS, WIDTH)), draw((WIDTH,)), matrix), 0):
            return False
    return True


def _drawing(device: Device) -> Callable[..., Buffer]:
    """Draws normal numbers of a shape, a type and a size, onto a device."""
    random = np.random.default_rng(0)

    def draw(shape: Sequence[int], dtype: DType = DType.float32, size: float = 1) -> Buffer:
        numbers = random.standard_normal(shape, np.float32) * np.float32(size)
        return on_device(numbers, dtype, device)

    return draw


def _agree(made: Sequence[Buffer], tolerance: float) -> bool:
    """Whether the second half of some results is as the first; what is no number never is."""
    arrays = [one.to_numpy() for one in made]
    pairs = zip(arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :], strict=True)
    # A comparison with NaN is false.
    return all(
        bool(np.abs(own - known).max() <= tolerance * np.abs(known).max()) for known, own in pairs
    )


def proof_artifact(device: Device, dtype: DType, session: Session, generation: int) -> ArtifactSpec:
    """What `compiled` is to compile for a device: see `proof_module`."""
    return {
        "name": f"proofs-{device.api}-{dtype.name}",
        "build": lambda: proof_module(DeviceRef.from_device(device), device.api, dtype, generation),
        "key": {"dtype": dtype.name, "generation": generation},
        "session": session,
        "about_seconds": 60,
    }


def proof_module(device: DeviceRef, api: str, dtype: DType, generation: int) -> Module:
    """The graphs of every proof up to a generation."""
    module = Module()
    few, many = (
        {kind: Layers(device, api, dtype, which, kind) for kind in (THREADS, AMPERE, HOPPER)}
        for which in (True, False)
    )
    _add_products(module, "products", [many[THREADS], many[AMPERE]])
    _add_steps(module, [few[THREADS], few[AMPERE]])
    _add_attention(module, "attention_of_steps", [few[THREADS], few[AMPERE]], new=1)
    _add_attention(module, "attention_of_prompts", [many[THREADS], many[AMPERE]], new=FEW_ROWS)
    if generation == HOPPER:
        _add_products(module, "warpgroups", [many[AMPERE], many[HOPPER]])
        _add_chains(module, [few[AMPERE], few[HOPPER]])
    return module


def _add_products(module: Module, name: str, kinds: Sequence[Layers]) -> None:
    one = kinds[0]
    inputs = [one.tensor("items", "rows", "depth"), one.tensor("columns", "depth")]
    with new_graph(name, inputs, module) as graph:
        x, weight = (value.tensor for value in graph.inputs)
        graph.output(*(kind.logits(x, weight) for kind in kinds))


def _add_steps(module: Module, kinds: Sequence[Layers]) -> None:
    """The feed-forward of a layer, with float and with int8 weights."""
    one, wide = kinds[0], 4 * WIDTH
    shapes = ((wide, WIDTH), (WIDTH, wide))
    inputs = [
        one.floats(1, "rows", WIDTH),
        one.floats(wide),
        *(one.tensor(*shape) for shape in shapes),
        *(TensorType(DType.int8, shape, one.device) for shape in shapes),
        *(one.floats(rows) for rows, _ in shapes),
    ]
    with new_graph("steps", inputs, module) as graph:
        stream, vector, expand, contract, *integers = (value.tensor for value in graph.inputs)
        own = vector[:WIDTH]
        matrices = [[expand], [contract]], [integers[::2], integers[1::2]]
        made = []
        for kind in kinds:
            for first, second in matrices:
                hidden = kind.normed_linear(stream, own, own, *first, vector, activate=True)
                made.append(kind.added(stream, hidden, *second, own))
        graph.output(*made)


def _add_attention(module: Module, name: str, kinds: Sequence[Layers], new: int) -> None:
    one, width = kinds[0], HEADS * HEAD_SIZE
    inputs = {
        "kv_cache": BufferType(one.dtype, [1, 2, "rows", CONTEXT, width], one.device),
        "cross_kv": one.tensor(1, "windows", FRAMES, 2 * width),
        "slot_table": one.integers("rows", CONTEXT),
        "positions": one.integers("rows"),
        "windows": one.integers("items"),
        "qkv": one.tensor("items", "queries", 3 * width),
        "queries": one.tensor("items", "queries", width),
    }
    with new_graph(name, list(inputs.values()), module) as graph:
        given = dict(zip(inputs, graph.inputs, strict=True))
        qkv, queries = given["qkv"].tensor, given["queries"].tensor
        layer = ops.constant(0, DType.int32, DeviceRef.CPU())
        made = []
        for kind in kinds:
            made.append(self_attention(kind, HEAD_SIZE, given, qkv, layer, new))
            made.append(cross_attention(kind, HEAD_SIZE, given, queries, layer))
        graph.output(*(ops.cast(each, DType.float32) for each in made))


def _add_chains(module: Module, kinds: Sequence[Layers]) -> None:
    one = kinds[0]
    inputs = [one.floats(1, "rows", WIDTH), one.floats(WIDTH), one.tensor(WIDTH, WIDTH)]
    with new_graph("chains", inputs, module) as graph:
        values = [value.tensor for value in graph.inputs]
        graph.output(*(_chain(kind, *values) for kind in kinds))


def _chain(
    layers: Layers, stream: TensorValue, vector: TensorValue, weight: TensorValue
) -> TensorValue:
    for _ in range(CHAIN):
        made = layers.normed_linear(stream, vector, vector, weight, vector)
        stream = layers.added(stream, made, weight, vector)
    return stream
