"""What type checkers know of options, files, losses and optimisers.

A line that ends with "# error" must be refused, and no other.
"""

from __future__ import annotations

import numpy as np
from typing_extensions import assert_type

import fastrnn
import fastrnn.keras
import fastrnn.onnx
from fastrnn.typing import Activation, Array, Backend, FloatDType, Precision

fastrnn.LSTM(3, 4, 2, precision="high", backend="numpy", dtype="float64", dropout=0.1, rng=0)
fastrnn.LSTM(3, 4, gate_activation="hard_sigmoid", activation="relu", output_activation="tanh")
fastrnn.LSTM(3, 4, precision="hihg")  # error
fastrnn.LSTM(3, 4, backend="cupy")  # error
fastrnn.LSTM(3, 4, gate_activation="softsign")  # error
fastrnn.LSTM(3, 4, activation="Tanh")  # error
fastrnn.LSTM(3, 4, output_activation="linear")  # error
fastrnn.LSTM(3, 4, dtype="float16")  # error
fastrnn.LSTM(3, 4, dtype=np.float16)  # error
fastrnn.LSTM(3, 4, dtype=np.int64)  # error
fastrnn.LSTM(3, 4, peepholes=True)  # error
fastrnn.LSTM(3, 4, proj_size=2.0)  # error
fastrnn.LSTM("3", 4)  # error
fastrnn.GRU(3, 4, reset_after=False, gate_activation="hard_sigmoid", gate_slope=1 / 6, clip=3.0)
fastrnn.GRU(3, 4, precision="low")  # error
fastrnn.GRU(3, 4, nonlinearity="relu")  # error
fastrnn.GRU(3, 4, backend="gpu")  # error
fastrnn.RNN(3, 4, nonlinearity="relu", bidirectional=True, rng=np.random.default_rng(0))
fastrnn.RNN(3, 4, nonlinearity="gelu")  # error
fastrnn.RNN(3, 4, peephole=True)  # error
fastrnn.RNNCell(3, 4, nonlinearity="sigmoid")
fastrnn.RNNCell(3, 4, nonlinearity="ReLU")  # error
fastrnn.GRUCell(3, 4, precision="HIGH")  # error
fastrnn.GRUCell(3, 4, num_layers=2)  # error
fastrnn.LSTMCell(3, 4, activation="elu")  # error
fastrnn.LSTMCell(3, 4, backend="torch")  # error

lstm = fastrnn.LSTM(3, 4)
lstm.freeze()
lstm.freeze("int8")
lstm.freeze(weight_dtype="bfloat16")
lstm.freeze("int4")  # error
lstm.freeze(weight_dtype="float16")  # error
assert_type(lstm.precision, Precision)
assert_type(lstm.backend, Backend)
assert_type(lstm.gate_activation, Activation)
fastrnn.GRU(3, 4, precision=lstm.precision, backend=lstm.backend, dtype=lstm.dtype)

fastrnn.Linear(3, 4, dtype=np.float64, device="cuda")
fastrnn.Linear(3, 4, device="gpu")  # error
fastrnn.Linear(3, 4, dtype="int8")  # error
fastrnn.Embedding(10, 4, device="tpu")  # error
fastrnn.LayerNorm(4, device="cuda:0")  # error
fastrnn.Attention(3, 3, score="dot")
fastrnn.Attention(3, 4, score="bilinear")  # error
fastrnn.CRF(3, backend="numba")
fastrnn.CRF(3, backend="cuda")  # error
fastrnn.ctc_loss(np.zeros((3, 1, 2)), [[1]], backend="jax")  # error


def build(precision: Precision, activation: Activation, dtype: FloatDType) -> fastrnn.GRU:
    return fastrnn.GRU(3, 4, precision=precision, activation=activation, dtype=dtype)


def from_text(precision: str) -> fastrnn.GRU:
    return fastrnn.GRU(3, 4, precision=precision)  # error


build("medium", "relu", np.float32)
build("float32", "relu", np.float32)  # error

# Files.
loaded = fastrnn.load("model.safetensors")
loaded.hidden_size  # error
if isinstance(loaded, fastrnn.LSTM):
    assert_type(loaded, fastrnn.LSTM)
    _, (h, c) = loaded(np.zeros((5, 2, 3), np.float32))
elif isinstance(loaded, dict):
    head = loaded["head"]
    assert isinstance(head, fastrnn.Linear)
    assert_type(head(np.zeros((2, 4), np.float32)), Array)
adam = fastrnn.Adam(lstm)
assert_type(fastrnn.load("run", into=lstm, optimizer=adam), "int | None")
assert_type(fastrnn.load("run", into={"rnn": lstm, "head": fastrnn.Linear(4, 2)}), "int | None")
fastrnn.save("run", {"rnn": lstm}, adam, np.random.default_rng(0), step=3)
fastrnn.load("run", optimizer=adam)  # error
fastrnn.load("run", into=lstm, backend="cpu")  # error
fastrnn.load("run", backend="opencl")  # error
fastrnn.load("run", into=3)  # error
fastrnn.load(3)  # error
fastrnn.save("run", 3)  # error
fastrnn.save("run", lstm, step="3")  # error

# Losses and optimisers.
loss, dlogits = fastrnn.softmax_cross_entropy(np.zeros((2, 3)), [0, 1], label_smoothing=0.1)
assert_type(loss, float)
assert_type(dlogits, Array)
assert_type(fastrnn.mse(dlogits, dlogits), tuple[float, Array])
linear = fastrnn.Linear(4, 2)
y, tape = linear.forward(np.zeros((5, 4), np.float32))
grads = linear.backward(tape, y)
assert_type(fastrnn.clip_grad_norm([grads], 1.0), float)
fastrnn.SGD([lstm, linear], lr=0.1, momentum=0.9, nesterov=True).step(grads)
fastrnn.clip_grad_norm(1.0, grads)  # error
fastrnn.clip_grad_norm(grads, "1")  # error
fastrnn.SGD(lstm)  # error
fastrnn.SGD(lstm, 0.1, betas=(0.9, 0.99))  # error
fastrnn.Adam(lstm, betas=0.9)  # error
fastrnn.Adam(0.1)  # error
adam.step(0.1)  # error
adam.step(lstm)  # error
fastrnn.LSTMM  # error
fastrnn.show_config("text")  # error

fastrnn.LSTM.from_params({}, "encoder", precision="high", batch_first=True, dtype="float64")
fastrnn.LSTM.from_params({}, precision="hihg")  # error
fastrnn.GRU.from_params({}, batchfirst=True)  # error
fastrnn.from_torch(object(), backend="numpy", dtype=np.float64)
fastrnn.from_torch(object(), backend="cuda:0")  # error
fastrnn.onnx.load("model.onnx", reproducible=True)
fastrnn.onnx.load("model.onnx", precision=1)  # error
fastrnn.keras.load("model.keras", reverse=True)
fastrnn.keras.load("model.keras", gate_activation="hard")  # error
