"""Backpropagation through time of a vanilla RNN in twenty lines, checked three ways.

    h_t = tanh(W x_t + R h_{t-1} + b)                      forward, t = 0 .. T-1

    da_t = (dy_t + dh_t) (1 - h_t**2)                      backward, t = T-1 .. 0
    dW += da_t^T x_t    dR += da_t^T h_{t-1}    db += da_t
    dx_t = da_t W       dh_{t-1} = da_t R

dy_t is what the loss says about h_t itself, dh_t what comes back from the steps after it. R is
multiplied in once a step, so over many steps dh shrinks or grows like a power of R: the vanishing
and the exploding gradient (Bengio, Simard and Frasconi 1994).

    python examples/bptt_by_hand.py
"""

from __future__ import annotations

import os
import sys

import numpy as np

import fastrnn

T, B, I, H = 12, 3, 4, 5


def forward(x, h0, W, R, b):
    """Run the network; return h before the first step and after every step, (T+1, B, H)."""
    h = [h0]
    for x_t in x:
        h.append(np.tanh(x_t @ W.T + h[-1] @ R.T + b))
    return np.array(h)


def backward(x, h, dy, W, R):
    """Go back through time; return the gradients, and dL/dh at every step."""
    dW, dR, db = np.zeros_like(W), np.zeros_like(R), np.zeros(len(R))
    dx, dh = np.zeros_like(x), np.zeros_like(h)
    for t in reversed(range(len(x))):
        dh[t + 1] += dy[t]
        da = dh[t + 1] * (1 - h[t + 1] ** 2)  # tanh' = 1 - tanh**2
        dW += da.T @ x[t]
        dR += da.T @ h[t]
        db += da.sum(axis=0)
        dx[t] = da @ W
        dh[t] = da @ R
    return {"weight_ih_l0": dW, "weight_hh_l0": dR, "bias_ih_l0": db, "x": dx, "h": dh}


def main() -> float:
    """Compare with finite differences and with fastrnn; return the largest difference."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    h0 = rng.standard_normal((B, H))
    layer = fastrnn.RNN(I, H, dtype=np.float64, rng=rng)
    W, R = layer.params["weight_ih_l0"], layer.params["weight_hh_l0"]
    b = layer.params["bias_ih_l0"] + layer.params["bias_hh_l0"]

    h = forward(x, h0, W, R, b)
    by_hand = backward(x, h, dy, W, R)

    # The same from fastrnn, which has two biases, as torch has; each has the gradient of b.
    y, _, tape = layer.forward(x, h0[None])
    grads = layer.backward(tape, dy)
    found = dict(grads.params) | {"x": grads.x, "h0": grads.state[0]}
    expected = by_hand | {"bias_hh_l0": by_hand["bias_ih_l0"], "h0": by_hand.pop("h")[0]}
    worst = np.abs(y - h[1:]).max()
    print("largest difference between by hand and fastrnn")
    print(f"  {'y':14} {worst:.1e}")
    for name, value in found.items():
        difference = np.abs(value - expected[name]).max()
        worst = max(worst, difference)
        print(f"  {name:14} {difference:.1e}")

    # One element of R, moved by eps both ways: what does the loss <dy, y> do?
    eps = 1e-6
    up, down = R.copy(), R.copy()
    up[1, 2] += eps
    down[1, 2] -= eps
    slope = np.vdot(dy, forward(x, h0, W, up, b)[1:] - forward(x, h0, W, down, b)[1:]) / (2 * eps)
    print(f"dL/dR[1, 2]: {by_hand['weight_hh_l0'][1, 2]:.8f} by hand, {slope:.8f} by differences")
    print(f"gradcheck of the whole layer: {fastrnn.gradcheck(layer, x, h0[None], rng=0)}")

    # The last step's loss alone, carried back.
    last = np.zeros_like(dy)
    last[-1] = dy[-1]
    print("norm of dL/dh by step, if only the last step has a loss")
    for t, dh in enumerate(backward(x, h, last, W, R)["h"]):
        print(f"  {t:2d} {np.linalg.norm(dh):.2e}")
    return worst


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
