"""The kernels of Whisper: one stage a file, registered for MAX graphs as `whisper.*`."""

from .cpu import AlignmentWeights, Choose, CrossKV, Decoder, Encoder, PackWeights, Probabilities
from .cpu import Logits as CpuLogits
from .cpu import DTW, Step, TakeToken
from .gpu import AddPositions, Advance, Cast, CrossAttention, Embed, EmbedInt8, Im2col, Norm
from .gpu import GpuAlignmentWeights, GpuChoose, GpuProbabilities, StoreCrossKV
from .gpu import Linear, LinearAdded, LinearAddedInt8, LinearInt8, LinearNormed, LinearNormedInt8
from .gpu import Logits, LogitsInt8, SelfAttention
from .log_mel import LogMel
