"""chars2vec (Apache-2.0): vectors of misspelt words, two LSTM layers of Keras 2, beside Keras.

pip install --no-deps chars2vec
"""

import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import timing

import fastrnn.keras

folder = Path(find_spec("chars2vec").origin).parent / "trained_models" / "eng_50"
size, letters = pickle.loads((folder / "model.pkl").read_bytes())
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of weights alone, whose gates Keras 2.2 made hard sigmoids
    load, hard = fastrnn.keras.load, {"gate_activation": "hard_sigmoid"}
    layers = [load(folder / "weights.h5", name, **hard) for name in ("lstm_1", "lstm_2")]

given = keras.Input((None, len(letters)))
gate = {"recurrent_activation": lambda a: keras.ops.clip(0.2 * a + 0.5, 0, 1)}
h = keras.layers.LSTM(size, return_sequences=True, name="lstm_1", **gate)(given)
model = keras.Model(given, keras.layers.LSTM(size, name="lstm_2", **gate)(h))
model.load_weights(folder / "weights.h5")


def ours(x):
    return layers[1](layers[0](x)[0])[1][0][0]


words = ["Natural", "Language", "Understanding", "Naturael", "Longuge", "Updderctundjing"]
x = np.zeros((len(words), max(map(len, words)), len(letters)), np.float32)
for row, word in zip(x, words, strict=True):  # padded in front, as Keras's pad_sequences does
    row[range(-len(word), 0), [letters[letter] for letter in word.lower()]] = 1
assert abs(ours(x) - model.predict_on_batch(x)).max() < 1e-5
timing.ratio(lambda: model.predict_on_batch(x), lambda: ours(x))
