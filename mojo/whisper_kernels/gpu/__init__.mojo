"""The kernels of a GPU; a CPU runs them too, for tests."""

from .alignment import AlignmentWeights as DeviceAlignmentWeights
from .sample.choice import Choose as DeviceChoose
from .embedding import Embed, EmbedInt8, Unfold
from .history import AttendHistory
from .linear.few import Linear, LinearAdded, Logits
from .linear.int8 import LinearAddedInt8, LinearInt8, LogitsInt8
from .linear.normed import LinearNormed, LinearNormedInt8
from .norm import Cast, Keep, Norm, Place
from .softmax import Probabilities as DeviceProbabilities
from .window import AttendWindow
