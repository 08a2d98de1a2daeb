"""The kernels of Whisper: one stage a file, registered for MAX graphs as `whisper.*`."""

from .alignment import AlignmentWeights, TimeWarping
from .attention import Attention, CrossAttention, PackAttention, PackMemory
from .candidates import Candidates
from .embedding import Embed, TakeToken
from .layer_norm import LayerNorm
from .linear import Conv, ConvResidual, Linear, LinearResidual, Project, TimeMajor
from .log_mel import LogMel
from .pack import Pack
from .rules import ApplyRules
from .self_attention import SelfAttention
from .softmax import Probabilities
