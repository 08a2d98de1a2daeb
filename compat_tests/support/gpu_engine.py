"""The engine whose graphs are those of a GPU, executed on the CPU."""

from __future__ import annotations

from max.driver import CPU

from whisper_max_backend.engine.checkpoint.load import Checkpoint
from whisper_max_backend.engine.gpu.model import GPUModel
from whisper_max_backend.engine.whisper import Whisper


class GPUGraphsWhisper(Whisper):
    """The engine over the graphs of a GPU, on the CPU: in float32 or int8_float32."""

    @property
    def _shares_steps(self) -> bool:
        return True

    def _load_device_model(self, checkpoint: Checkpoint, device_index: int) -> GPUModel:
        return GPUModel(checkpoint, CPU(), self._precision.running)
