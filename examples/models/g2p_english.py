"""g2p_en (Apache-2.0): how unknown words are pronounced, a GRU to a GRU in NumPy.

pip install --no-deps g2p_en
"""

import sys
from unittest.mock import MagicMock

sys.modules |= dict.fromkeys(["nltk", "nltk.corpus", "nltk.tokenize", "inflect"], MagicMock())

import timing  # noqa: E402
from g2p_en import G2p  # noqa: E402

import fastrnn  # noqa: E402

g2p = G2p()
w = dict(g2p.variables)
named = {k.replace("_w_", "_weight_").replace("_b_", "_bias_") + "_l0": w[k] for k in w if "h" in k}
encoder, decoder = (
    fastrnn.GRU.from_params({k[4:]: named[k] for k in named if k.startswith(half)})
    for half in ("enc", "dec")
)
encoder.freeze()
step = decoder.stepper()


def predict(word):
    _, step.state = encoder(g2p.encode(word).swapaxes(0, 1))
    found, phone = [], 2
    while len(found) < 20:
        phone = int((w["fc_w"] @ step(w["dec_emb"][phone]) + w["fc_b"]).argmax())
        if phone == 3:
            break
        found.append(g2p.idx2p[phone])
    return found


words = ["activationist", "fastrnn", "glorp", "quixotically", "backpropagate", "numpyfied"]
assert [predict(word) for word in words] == [g2p.predict(word) for word in words]
timing.ratio(lambda: [*map(g2p.predict, words)], lambda: [*map(predict, words)])
