"""OpenVINO GenAI, converted by optimum-intel; bfloat16 by default where the processor has AMX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Model, Transcribe, missing
from benchmarks.peers.converted import converted, hugging_face

_HINT = "INFERENCE_PRECISION_HINT"


@dataclass(frozen=True)
class OpenVINO:
    """Its own choice of precision and threads."""

    @property
    def name(self) -> str:
        return f"OpenVINO GenAI {self._precision()}".rstrip()

    def why_absent(self) -> str:
        return missing("openvino-genai")

    def load(self, model: Model) -> Transcribe:
        import openvino_genai

        folder = converted(model, "openvino", lambda target: _export(hugging_face(model), target))
        pipeline = openvino_genai.WhisperPipeline(str(folder), "CPU")

        def transcribe(samples: np.ndarray, beams: int) -> str:
            config: Any = pipeline.get_generation_config()
            if config.is_multilingual:
                config.language, config.task = "<|en|>", "transcribe"
            config.num_beams = beams
            config.return_timestamps = True  # as the others; it also carries on where a window ends
            return str(pipeline.generate(samples, config).texts[0])

        return transcribe

    def _precision(self) -> str:
        """What a model is computed in unless asked otherwise."""
        if self.why_absent():
            return ""
        import openvino

        element = openvino.Core().get_property("CPU", _HINT)
        return {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(
            element.get_type_name(), element.get_type_name()
        )


def _export(source: Path, target: Path) -> None:
    if reason := missing("optimum-intel"):
        raise RuntimeError(reason)
    from optimum.exporters.openvino import main_export

    main_export(
        str(source),
        output=str(target),
        task="automatic-speech-recognition-with-past",
        local_files_only=True,
        convert_tokenizer=True,
    )
