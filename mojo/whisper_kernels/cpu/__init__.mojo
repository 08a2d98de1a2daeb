"""The kernels of a CPU."""

from .alignment import AlignmentWeights, TimeWarping
from .amx.rate import TileRate
from .cross_kv import Remember
from .decoder import Decoder
from .embedding import Project, TakeToken
from .encoder import Encoder
from .log_mel import LogMel
from .pack_weights import Pack
from .sample.choice import Choose
from .softmax import Probabilities
from .step import Step
