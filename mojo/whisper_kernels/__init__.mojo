"""The kernels of Whisper: one stage a file, registered for MAX graphs as `whisper.*`."""

from .alignment import AlignmentWeights, TimeWarping
from .choice import Choose
from .decoder import Decoder
from .device import AttendHistory, AttendWindow, Embed, Linear, LinearAdded, Logits, Unfold
from .device import DeviceAlignmentWeights, DeviceChoose, DeviceProbabilities
from .device import EmbedInt8, LinearAddedInt8, LinearInt8, LogitsInt8
from .device import Cast, Keep, LinearNormed, LinearNormedInt8, Norm, Place
from .embedding import Project, TakeToken
from .encoder import Encoder
from .log_mel import LogMel
from .memory import Remember
from .pack_weights import Pack
from .softmax import Probabilities
from .step import Step
from .tile_rate import TileRate
