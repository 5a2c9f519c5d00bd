"""Make the text encoder that settings describe."""

from t2i.config.options import JointOptions
from t2i.text.char_cnn_rnn import CharCnnRnn


def text_encoder(options: JointOptions) -> CharCnnRnn:
    """Make the char-CNN-RNN that the options describe, with random weights."""
    return CharCnnRnn(options.variant, options.width, options.dim, options.channels)
