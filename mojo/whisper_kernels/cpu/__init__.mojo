"""The kernels of a CPU."""

from .alignment import AlignmentWeights, DTW
from .cross_kv import CrossKV
from .decoder import Decoder
from .embedding import Logits, TakeToken
from .encoder import Encoder
from .pack_weights import PackWeights
from .sample.candidates import Choose
from .token_probabilities import Probabilities
from .step import Step
