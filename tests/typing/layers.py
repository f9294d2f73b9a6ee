"""What type checkers know of layers, cells, tapes, gradients and steppers.

`assert_type` states a type; a line that ends with "# error" must be refused, and no other.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from typing_extensions import assert_type

import fastrnn
from fastrnn.typing import Array, Pair, State

x: np.ndarray[Any, np.dtype[np.float32]] = np.zeros((5, 2, 3), np.float32)
rnn, gru, lstm = fastrnn.RNN(3, 4), fastrnn.GRU(3, 4), fastrnn.LSTM(3, 4, proj_size=2)

# The state of an RNN or a GRU is an array, that of an LSTM a pair.
y, h = gru(x)
assert_type(y, Array)
assert_type(h, Array)
h[-1].reshape(h.shape[1], -1)
assert_type(rnn(x, h)[1], Array)
y, (h, c) = lstm(x)
assert_type(c, Array)
assert_type(lstm(x, (h, c), lengths=[5, 3])[1], Pair)
y, state, tape = lstm.forward(x, resets=np.zeros((5, 2), bool), rng=0)
assert_type(state, Pair)
assert_type(tape.states(), Pair)
assert_type(gru.forward(x)[2].states(), Array)
gru(x, (h, c))  # error
lstm(x, h)  # error
lstm(x)[1].shape  # error
gru(x, batch_first=True)  # error
gru.forward(x, checkpoint_every="4")  # error

# Gradients have the forms of what they are the gradients of.
grads = lstm.backward(tape, np.ones_like(y), dstate=(h, None))
assert_type(grads.x, Array)
assert_type(grads.state, Pair)
assert_type(grads.flat, Array)
assert_type(grads.params["weight_hh_l0"], Array)
assert_type(rnn.backward(rnn.forward(x)[2], None, h).state, Array)
lstm.backward(tape, None, h)  # error
lstm.backward(gru.forward(x)[2], y)  # error
lstm.backward(y)  # error
gru.backward(gru.forward(x)[2], y, dstate=(h, c))  # error
grads.state.shape  # error

# Cells.
gru_cell, lstm_cell = fastrnn.GRUCell(3, 4), fastrnn.LSTMCell(3, 4)
x_t = x[0]
assert_type(gru_cell(x_t), Array)
assert_type(fastrnn.RNNCell(3, 4)(x_t, h), Array)
assert_type(lstm_cell(x_t, lstm_cell(x_t)), Pair)
h, c = lstm_cell(x_t)
new, cell_tape = gru_cell.forward(x_t)
assert_type(new, Array)
assert_type(gru_cell.backward(cell_tape, new).state, Array)
state, lstm_tape = lstm_cell.forward(x_t, (h, c))
assert_type(lstm_cell.backward(lstm_tape, (None, c)).state, Pair)
lstm_cell(x_t, h)  # error
gru_cell(x_t, lengths=[1])  # error

# Steppers.
step, lstm_step = gru.stepper(2), lstm.stepper()
assert_type(step(x_t, copy=True), Array)
assert_type(step.state, Array)
assert_type(lstm_step.state, Pair)
assert_type(lstm_cell.stepper().state, Pair)
lstm_step.state = h, c
step.state = h
step.reset(np.array([True, False]))
step.reorder([1, 0])
step.state = h, c  # error
lstm_step.state = h  # error
step(x_t, True)  # error


# Names for annotations, with and without the form of the state.
def train(layer: fastrnn.GRU, tape: fastrnn.Tape[Array]) -> fastrnn.Gradients[Array]:
    return layer.backward(tape, None)


def stream(step: fastrnn.Stepper, rows: list[Array]) -> list[Array]:
    return [step(row, copy=True) for row in rows]


def norm(grads: fastrnn.Gradients) -> float:
    return fastrnn.clip_grad_norm(grads, 1.0)


def last(layer: fastrnn.GRU | fastrnn.LSTM, x: Array) -> State:
    return layer(x)[1]


stream(step, [x_t])
stream(lstm_step, [x_t])
norm(grads)
train(gru, tape)  # error
last(rnn, x)  # error

# What makes layers of layers keeps their class.
assert_type(copy.deepcopy(lstm), fastrnn.LSTM)
assert_type(lstm.to("cpu"), fastrnn.LSTM)
assert_type(fastrnn.LSTM.from_params({"weight_ih_l0": x}), fastrnn.LSTM)
assert_type(fastrnn.GRUCell.from_params({}, "encoder.", dtype=np.float64), fastrnn.GRUCell)
assert_type(fastrnn.Linear.from_params({}), fastrnn.Linear)
assert_type(lstm.hidden_size, int)
lstm.hidden_size = 5  # error
lstm.hidden  # error
