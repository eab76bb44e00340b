"""The encoder of the wav2vec 2.0 family (wav2vec 2.0, HuBERT, WavLM), a width for every layer.

A waveform passes seven strided convolutions, a projection to the model's width, a positional
convolution and N transformer blocks. Teacher and pruned student are the same class: convolutions,
attention heads and feed-forward units may have any number left in every layer. Parameter names and
outputs are those of `transformers`. An exported model carries these modules
(`skill.encoder.formats.export.CARRIED`).

Padding. `transformers` (and the training of the Base models) lets the group norm of the first
convolution see the padding of a batch, so an utterance's states depend on its neighbours. That is
the default here, too. With `encoder.exact_padding = True` the norm's statistics are those of each
utterance alone: a padded batch then equals single utterances, as SUPERB's batch size 1 has it.
"""

from .config import EncoderConfig, Family
from .model import SpeechEncoder

__all__ = ["EncoderConfig", "Family", "SpeechEncoder"]
