"""Captions of icons
=================

What does this icon show? Convolutions of torch, and a decoder of fastrnn.torch with attention. ::

    python examples/applications/captions.py

Icons of Material Design (Apache-2.0) in the package qtawesome (MIT), 24 by 24 points, and their
names, "folder arrow left"; 15 % are held out. The decoder attends to places of the picture, and to
the words of the three most similar pictures of the training part. Needs torch and Pillow. Baseline:
the name of the nearest picture, point by point.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from typing import Any

import icons
import measures
import numpy as np
import torch
import training
from torch import nn
from tqdm import tqdm

import fastrnn
import fastrnn.torch

END, NEAR = 0, 3


class Captioner(nn.Module):
    """Convolutions, a GRU over words, and attention to 36 places and the neighbours' words."""

    def __init__(self, words: int, gru: Any, size: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 32), (32, 64), (64, size)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if after < size else [nn.Dropout2d(0.2)]
        self.places = nn.Sequential(*layers)
        self.words = nn.Embedding(words, size)
        self.rank = nn.Embedding(NEAR, size)
        self.first = nn.Linear(2 * size, size)
        self.gru = gru(size, size)
        self.mix = nn.Linear(2 * size, size)
        self.dropout = nn.Dropout(0.4)
        self.out = nn.Linear(size, words)

    def memory(self, images: Any, near: Any) -> tuple[Any, Any, Any]:
        """What is attended to (B, M, size), what of it counts, and the GRU's first state."""
        places = self.places(images[:, None]).flatten(2).swapaxes(1, 2)
        told = self.words(near) + self.rank.weight[:, None]  # (B, NEAR, words, size)
        valid = torch.cat(
            [torch.ones(places.shape[:2], dtype=torch.bool), (near != END).flatten(1)], 1
        )
        memory = torch.cat([places, self.dropout(told.flatten(1, 2))], 1)
        state = torch.tanh(self.first(torch.cat([places.mean(1), told[:, 0].mean(1)], 1)))
        return memory, valid, state[None]

    def forward(self, memory: Any, valid: Any, state: Any, before: Any) -> tuple[Any, Any]:
        """Scores (T, B, words) after each word of before (T, B), and the state."""
        y, state = self.gru(self.dropout(self.words(before)), state)
        context = nn.functional.scaled_dot_product_attention(
            y.swapaxes(0, 1), memory, memory, valid[:, None]
        )
        mixed = torch.tanh(self.mix(torch.cat([y, context.swapaxes(0, 1)], 2)))
        return self.out(self.dropout(mixed)), state

    @torch.no_grad()
    def write(self, images: Any, near: Any) -> Any:
        """The likeliest word after the other, (6, B)."""
        self.eval()
        memory, valid, state = self.memory(images, near)
        words = torch.zeros(1, len(images), dtype=torch.long)
        written = []
        for _ in range(6):
            scores, state = self(memory, valid, state, words)
            words = scores.argmax(2)
            written.append(words[0])
        return torch.stack(written)


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=25)
    torch.set_num_threads(fastrnn.get_num_threads())
    torch.manual_seed(args.seed)
    images, names = icons.load()
    if args.quick:
        images, names = images[::12], names[::12]
    parts = training.split(len(names), np.random.default_rng(0), 0.15, 0.1)
    words = ["<end>", *sorted({word for name in names for word in name})]
    numbers = {word: n for n, word in enumerate(words)}
    known = images[parts[0]]
    near = icons.nearest(known, images, NEAR + 1)
    place = np.full(len(images), -1)
    place[parts[0]] = np.arange(len(known))  # a picture is no neighbour of its own
    near = np.stack([row[row != own][:NEAR] for row, own in zip(near, place, strict=True)])

    def coded(rows: Any) -> Any:
        """Words (T, N) of names, with an end."""
        padded, _ = fastrnn.pad([[*(numbers[word] for word in names[n]), END] for n in rows])
        return padded

    neighbours = coded(parts[0][near.ravel()]).T.reshape(len(near), NEAR, -1)
    rng = np.random.default_rng(args.seed)
    model = Captioner(len(words), nn.GRU if args.torch else fastrnn.torch.GRU)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    batches = -(-len(parts[0]) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=args.epochs * batches)

    def write(rows: Any) -> list[list[str]]:
        columns = model.write(torch.tensor(images[rows]), torch.tensor(neighbours[rows])).T.tolist()
        return [[words[n] for n in c[: c.index(END) if END in c else None]] for c in columns]

    best, kept = -1.0, copy.deepcopy(model.state_dict())
    progress = tqdm(range(args.epochs), unit="epoch", disable=None)
    for _ in progress:
        model.train()
        begin = time.process_time()
        for rows in np.array_split(rng.permutation(parts[0]), batches):
            moved = np.roll(images[rows], rng.integers(-1, 2, 2), axis=(1, 2))
            right = torch.tensor(coded(rows))
            before = torch.cat([torch.zeros_like(right[:1]), right[:-1]])
            count = (torch.cumsum(right == END, 0) <= 1).float()
            memory = model.memory(torch.tensor(moved), torch.tensor(neighbours[rows]))
            scores, _ = model(*memory, before)
            each = nn.functional.cross_entropy(
                scores.flatten(0, 1), right.flatten(), reduction="none", label_smoothing=0.1
            )
            loss = (each * count.flatten()).sum() / count.sum()
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            schedule.step()
        args.seconds += time.process_time() - begin
        score = measures.f1(write(parts[1]), [names[n] for n in parts[1]])
        progress.set_postfix(validation=f"{score:.4f}")
        if score > best:
            best, kept = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    right = [names[n] for n in parts[2]]
    found = write(parts[2])
    common = [word for word, _ in Counter(w for n in parts[0] for w in names[n]).most_common(2)]
    figures = {
        "the two commonest words": measures.f1([common] * len(right), right),
        "nearest picture": measures.f1([names[parts[0][k]] for k in near[parts[2], 0]], right),
        "convolutions, GRU, attention": measures.f1(found, right),
    }
    training.report(args, figures, "F1 of words on held-out icons")
    torch.save(model.state_dict(), args.out / f"{args.name}.pt")
    icons.picture(args.out / "captions_icons.png", images[parts[2][:12]], found, right)
    return figures


if __name__ == "__main__":
    training.run(main)
