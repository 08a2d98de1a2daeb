"""The kernels of Whisper: one stage a file, registered for MAX graphs as `whisper.*`."""

from .cpu import AlignmentWeights, TimeWarping
from .cpu import Choose, Decoder, Encoder, Pack, Probabilities, Project, Remember, Step, TakeToken
from .cpu import LogMel, TileRate
from .gpu import AttendHistory, AttendWindow, Embed, Linear, LinearAdded, Logits, Unfold
from .gpu import DeviceAlignmentWeights, DeviceChoose, DeviceProbabilities
from .gpu import EmbedInt8, LinearAddedInt8, LinearInt8, LogitsInt8
from .gpu import Cast, Keep, LinearNormed, LinearNormedInt8, Norm, Place
