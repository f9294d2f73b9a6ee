"""English into Spanish
====================

English into Spanish: an encoder, a decoder with attention, and a beam search. ::

    python examples/applications/translation.py

Texts of user interfaces in the package homeassistant (Apache-2.0), of 2 to 8 words, of which 500
are held out; longer ones, of up to 14, are trained on besides. BLEU (Papineni et al. 2002) and chrF
(Popovic 2015, characters 1 to 6, beta 2) are computed here, of words in lower case; sacrebleu 2.6
gives the same BLEU, and chrF to a hundredth. Baselines: the English as it is, and a translation
memory, which gives the Spanish of the training text with most words in common.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import baselines
import corpora
import measures
import numpy as np
import training

import fastrnn

END, START, UNKNOWN = 0, 1, 2


class Vocabulary:
    """Words that were seen twice or more."""

    def __init__(self, texts: list[list[str]]) -> None:
        seen = Counter(word for text in texts for word in text)
        self.words = ["<end>", "<start>", "<unknown>", *(w for w, n in seen.most_common() if n > 1)]
        self.numbers = {word: n for n, word in enumerate(self.words)}

    def code(self, text: list[str]) -> list[int]:
        return [self.numbers.get(word, UNKNOWN) for word in text]


class Translator(fastrnn.Model):
    """An encoder in both directions; a decoder that attends to it (Bahdanau et al. 2015)."""

    def __init__(self, source: Vocabulary, target: Vocabulary, rng: Any, hidden: int = 192) -> None:
        self.source = fastrnn.Embedding(len(source.words), 96, rng=rng)
        self.encoder = fastrnn.GRU(96, hidden // 2, bidirectional=True, rng=rng)
        self.bridge = fastrnn.Linear(hidden, hidden, rng=rng)
        self.target = fastrnn.Embedding(len(target.words), 96, rng=rng)
        self.decoder = fastrnn.GRU(96, hidden, rng=rng)
        self.attention = fastrnn.Attention(hidden, hidden, score="additive", rng=rng)
        self.mix = fastrnn.Linear(2 * hidden, 128, rng=rng)
        self.out = fastrnn.Linear(128, len(target.words), rng=rng)
        for embedding in (self.source, self.target):
            embedding.flat_params *= 0.5

    def encode(self, g: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        """Return the memory (T, B, H) and the decoder's first state (1, B, H)."""
        y, state = g(self.encoder, g.dropout(g(self.source, x), 0.3), lengths=lengths)
        return y, g.index(g.tanh(g(self.bridge, g.last(state))), None)

    def scores(self, g: Any, x: Any, lengths: Any, before: Any) -> Any:
        """Scores of the next word after each of ``before`` (T, B)."""
        memory, state = self.encode(g, x, lengths)
        y, _ = g(self.decoder, g.dropout(g(self.target, before), 0.3), state)
        context = g(self.attention, y, memory, lengths=lengths)
        mixed = g.tanh(g(self.mix, g.dropout(g.concat([y, context]), 0.3)))
        return g(self.out, g.dropout(mixed, 0.2))

    def translate(self, text: list[int], width: int) -> tuple[list[int], Any]:
        """Return the best sequence of words, and what each attended to, (words, T)."""
        memory, state = (
            n.value for n in self.encode(fastrnn.inference, np.array(text)[:, None], None)
        )
        step = self.decoder.stepper(batch_size=width)
        step.state = np.repeat(state, width, axis=1)
        attend = self.attention.stepper(np.repeat(memory, width, axis=1))

        def next_word(words: Any) -> Any:
            y = step(self.target(words))
            scores = self.out(np.tanh(self.mix(np.concatenate([y, attend(y)], axis=1))))
            return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

        found, _ = fastrnn.beam_search(
            next_word, START, END, width=width, max_steps=20, reorder=step.reorder, length_penalty=1
        )
        words = [word for word in found[0] if word != END]
        y, _ = self.decoder(self.target(np.array([START, *words])[:, None]), state)
        return words, self.attention.weights(y, memory)[: len(words), 0]


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=12)
    pairs = corpora.english_and_spanish()
    order = np.random.default_rng(0).permutation(len(pairs))
    short = [n for n in order if all(len(text) <= 8 for text in pairs[n])]
    held, validation = ([pairs[n] for n in part] for part in (short[:500], short[500:800]))
    train = [pairs[n] for n in sorted(set(order) - set(short[:800]))]
    if args.quick:
        train, validation, held = train[::50], validation[::10], held[::20]
    source, target = (Vocabulary([pair[side] for pair in train]) for side in (0, 1))
    model = Translator(source, target, np.random.default_rng(args.seed))

    def batch(rows: list[Any]) -> Any:
        x, lengths = fastrnn.pad([source.code(text) for text, _ in rows])
        words = [target.code(text) for _, text in rows]
        before, _ = fastrnn.pad([[START, *text] for text in words])
        after, steps = fastrnn.pad([[*text, END] for text in words])
        return x, lengths, before, after, steps

    def loss(g: Any, rows: Any) -> Any:
        x, lengths, before, after, steps = batch([train[n] for n in rows])
        scores = model.scores(g, x, lengths, before)
        return g.cross_entropy(scores, after, lengths=steps, label_smoothing=0.1)

    def right_words() -> float:
        x, lengths, before, after, steps = batch(validation)
        best = model.scores(fastrnn.inference, x, lengths, before).value.argmax(axis=-1)
        return float((best == after)[np.arange(len(best))[:, None] < steps].mean())

    def translate(text: list[str], width: int) -> list[str]:
        words, weights = model.translate(source.code(text), width)
        told = [target.words[n] for n in words]  # an unknown word: what it attended to most
        return [text[weights[t].argmax()] if n == UNKNOWN else told[t] for t, n in enumerate(words)]

    lengths = [len(a) + len(b) for a, b in train]
    training.fit(model, loss, lengths, right_words, args, lr=4e-3, batch_size=64)
    texts, answers = [a for a, _ in held], [b for _, b in held]
    beam = [translate(text, 4) for text in texts]
    figures = {}
    for name, found in (
        ("the English", texts),
        ("translation memory", baselines.translation_memory(train + validation, held)),
        ("GRUs with attention, greedy", [translate(text, 1) for text in texts]),
        ("GRUs with attention, beam of 4", beam),
    ):
        figures[f"{name}: BLEU"], figures[f"{name}: chrF"] = (
            measures.bleu(found, answers),
            measures.chrf(found, answers),
        )
    training.finish(args, model, figures, "on held-out texts")
    for text, found, answer in list(zip(texts, beam, answers, strict=True))[:5]:
        print(f"  {' '.join(text)} -> {' '.join(found)} ({' '.join(answer)})")
    return figures


if __name__ == "__main__":
    training.run(main)
