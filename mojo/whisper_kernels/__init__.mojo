"""The kernels of Whisper: one stage a file, registered for MAX graphs as `whisper.*`."""

from .cpu import AlignmentWeights, TimeWarping
from .cpu import Choose, Decoder, Encoder, Pack, Probabilities, Project, Remember, Step, TakeToken
from .cpu import LogMel, TileRate
from .gpu import AddPositions, Cast, CrossAttention, Embed, EmbedInt8, Im2col, Norm, SelfAttention
from .gpu import GpuAlignmentWeights, GpuChoose, GpuProbabilities, StoreCrossKV
from .gpu import Linear, LinearAdded, LinearAddedInt8, LinearInt8, LinearNormed, LinearNormedInt8
from .gpu import Logits, LogitsInt8
