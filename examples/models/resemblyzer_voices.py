"""Resemblyzer (Apache-2.0): embeddings of voices, three LSTM layers, beside torch.

pip install --no-deps Resemblyzer
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timing
import torch

import fastrnn

torch.set_num_threads(1)
path = Path(find_spec("resemblyzer").origin).with_name("pretrained.pt")
state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
lstm.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("lstm.")})
linear.load_state_dict({k[7:]: v for k, v in state.items() if k.startswith("linear.")})
encoder = fastrnn.LSTM.from_params(state, "lstm", batch_first=True)
last = fastrnn.Linear.from_params(state, "linear")
encoder.freeze()


@torch.inference_mode()
def theirs(mels):
    raw = torch.relu(linear(lstm(torch.from_numpy(mels))[1][0][-1]))
    return (raw / torch.norm(raw, dim=1, keepdim=True)).numpy()


def ours(mels):
    raw = np.maximum(last(encoder(mels)[1][0][-1]), 0)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


for parts in (1, 8):
    mels = np.abs(np.random.default_rng(0).standard_normal((parts, 160, 40))).astype(np.float32)
    assert abs(ours(mels) - theirs(mels)).max() < 1e-5
    timing.ratio(lambda mels=mels: theirs(mels), lambda mels=mels: ours(mels))
