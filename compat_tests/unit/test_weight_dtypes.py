"""What the numbers of a model are kept in, by its file and the type that it computes in."""

from __future__ import annotations

from pathlib import Path

import pytest
from max.dtype import DType

from compat_tests.support.miniature import SPECK, make_model
from whisper_max_backend.engine.checkpoint import weight_dtypes
from whisper_max_backend.engine.checkpoint.load import load_checkpoint
from whisper_max_backend.engine.checkpoint.weight_dtypes import gpu_types, storage_for


@pytest.mark.parametrize(("multiplies", "tiles"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("saved", "decoder"),
    [
        ("float32", "float32"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("int8", "float32"),
        ("int16", "float32"),
    ],
)
def test_the_file_s_smaller_floats_are_kept_for_steps(
    saved: str,
    decoder: str,
    multiplies: bool,
    tiles: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But no bfloat16 where the processor multiplies it, and would compute in it; and in bfloat16
    no float16 with AMX, which does not multiply it."""
    monkeypatch.setattr(weight_dtypes, "has_bfloat16", lambda: multiplies)
    monkeypatch.setattr(weight_dtypes, "has_tiles", lambda: tiles)
    checkpoint = load_checkpoint(make_model(tmp_path, SPECK, quantization=saved))
    kept = "float32" if multiplies and decoder == "bfloat16" else decoder
    assert storage_for(checkpoint, "float32").name == f"float32-{kept}-float32"
    assert storage_for(checkpoint, "int8_float32").name == "int8-int8-int8"
    kept = "float16" if decoder == "float16" and not tiles else "bfloat16"
    assert storage_for(checkpoint, "bfloat16").name == f"bfloat16-{kept}-bfloat16"


@pytest.mark.parametrize("floats", ["float32", "float16", "bfloat16"])
def test_on_a_gpu_int8_is_of_the_matrices_of_steps_only(floats: str) -> None:
    assert gpu_types(floats) == (DType[floats], DType[floats])
    assert gpu_types(f"int8_{floats}") == (DType[floats], DType.int8)
