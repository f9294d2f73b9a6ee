"""Recurrent layers for NumPy code: RNN, GRU and LSTM, forward and backward through time.

Names, shapes, gate orders and biases are those of ``torch.nn.RNN/LSTM/GRU``; no PyTorch is needed.
Letters: T time, B batch, I input, H hidden, P projection (or H), D directions, L layers, G gates.
"""

from .cells import GRUCell, LSTMCell, RNNCell
from .config import get_num_threads, num_threads, set_num_threads, show_config
from .layers import GRU, LSTM, RNN

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "get_num_threads",
    "num_threads",
    "set_num_threads",
    "show_config",
]
