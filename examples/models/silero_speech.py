"""Silero VAD (MIT, pip install --no-deps silero-vad): is this speech? Beside ONNX Runtime."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import timing

import fastrnn.onnx

path = Path(find_spec("silero_vad").origin).parent / "data" / "silero_vad_16k_op15.onnx"
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(path, options)
w = {t.name[6:]: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
stft = fastrnn.Conv1d.from_params({"weight": w["stft.forward_basis_buffer"]}, stride=128)
name, conv1d = "encoder.{}.reparam_conv", fastrnn.Conv1d.from_params
convs = [conv1d(w, name.format(k), stride=s) for k, s in enumerate((1, 2, 2, 1))]
[conv.freeze() for conv in (stft, *convs)]
padded = [np.zeros((n, 1, c.in_channels), "f4") for n, c in zip((6, 6, 4, 3), convs, strict=True)]
step = fastrnn.onnx.load(path, 0).stepper()  # in a branch of an If; the other is the same
out, bias = (w[f"decoder.decoder.2.{k}"].ravel() for k in ("weight", "bias"))


def ours(chunk):  # (576,): 64 samples of the last chunk and 512 new ones
    h = np.hypot(*np.split(stft(np.append(chunk, chunk[-2:-66:-1])[:, None, None]), 2, axis=2))
    for conv, zeros in zip(convs, padded, strict=True):
        zeros[1:-1] = h
        h = np.maximum(conv(zeros), 0)
    return 1 / (1 + np.exp(-(np.maximum(step(h[0]), 0) @ out + bias)))


chunks = np.random.default_rng(0).normal(0, 0.1, (30, 576)).astype(np.float32)
feeds = {"state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
for chunk in chunks:
    probability, feeds["state"] = session.run(None, feeds | {"input": chunk[None]})
    assert abs(ours(chunk) - probability).max() < 1e-5
timing.ratio(lambda: session.run(None, feeds | {"input": chunk[None]}), lambda: ours(chunk), 200)
