"""The kernels of a GPU; a CPU runs them too, for tests."""

from .advance import Advance
from .alignment import AlignmentWeights as GpuAlignmentWeights
from .attention.cross_attention import CrossAttention
from .attention.self_attention import SelfAttention
from .attended import AttendedFrames as GpuAttendedFrames
from .elementwise import AddPositions, Cast, StoreCrossKV
from .embedding import Embed, EmbedInt8
from .im2col import Im2col
from .linear.int8 import LinearAddedInt8, LinearInt8, LogitsInt8
from .linear.layer import Linear, LinearAdded, Logits
from .linear.normed import LinearNormed, LinearNormedInt8
from .norm import Norm
from .sample.candidates import Choose as GpuChoose
from .token_probabilities import Probabilities as GpuProbabilities
