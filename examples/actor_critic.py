"""A training step of a recurrent actor-critic, whose episodes end at random steps of a rollout.

A rollout has T steps of B environments. Where an episode ends, the memory of the network must begin
anew inside the sequence. In torch that is a loop of LSTMCell over the steps, or the rollout cut
into its episodes, sorted and packed; here it is `resets=`. All three compute the same loss and the
same gradients, which is checked before they are timed.

    python examples/actor_critic.py
    python examples/actor_critic.py --hidden 128 --ends 0.003
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import rnn

import fastrnn
import fastrnn.torch

Run = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class ActorCritic(nn.Module):
    """Observations (T, B, I) to logits of actions (T, B, A) and values (T, B)."""

    def __init__(self, observation: int, hidden: int, actions: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(observation, hidden)
        self.memory = fastrnn.torch.LSTM(hidden, hidden)
        self.policy = nn.Linear(hidden, actions)
        self.value = nn.Linear(hidden, 1)

    def loss(self, rollout: dict[str, torch.Tensor], run: Run) -> torch.Tensor:
        """Policy gradient with a baseline and an entropy bonus (A2C, Mnih et al. 2016)."""
        y = run(torch.tanh(self.encoder(rollout["observations"])), rollout["starts"])
        policy = torch.distributions.Categorical(logits=self.policy(y))
        value = self.value(y).squeeze(-1)
        advantage = rollout["returns"] - value
        gain = policy.log_prob(rollout["actions"]) * advantage.detach()
        return (advantage.square() / 2 - gain - 0.01 * policy.entropy()).mean()

    def with_resets(self, x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """One call: the state is zeros again where an episode starts."""
        return self.memory(x, resets=starts)[0]


class TorchMemory:
    """torch's two ways to compute the same, with the parameters of a module of ours."""

    def __init__(self, memory: fastrnn.torch.LSTM) -> None:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.cell = nn.LSTMCell(memory.input_size, memory.hidden_size)
        self.whole = nn.LSTM(memory.input_size, memory.hidden_size)
        for name in names:
            setattr(self.cell, name, getattr(memory, f"{name}_l0"))
            setattr(self.whole, f"{name}_l0", getattr(memory, f"{name}_l0"))

    def cell_loop(self, x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """T calls of LSTMCell; the state is multiplied by 0 where an episode starts."""
        h = c = x.new_zeros(x.shape[1], self.cell.hidden_size)
        outputs = []
        for x_t, start in zip(x, starts, strict=True):
            keep = (~start)[:, None]
            h, c = self.cell(x_t, (h * keep, c * keep))
            outputs.append(h)
        return torch.stack(outputs)

    def packed(self, x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """The rollout as one ragged batch of its episodes."""
        T, B, _ = x.shape
        starts = starts.clone()
        starts[0] = True
        edges = starts.T.flatten().nonzero().flatten().tolist()  # environment by environment
        sizes = [stop - start for start, stop in zip(edges, [*edges[1:], T * B], strict=True)]
        episodes = x.transpose(0, 1).flatten(0, 1).split(sizes)
        packed = rnn.pack_sequence(episodes, enforce_sorted=False)
        y = torch.cat(rnn.unpack_sequence(self.whole(packed)[0]))
        return y.view(B, T, -1).transpose(0, 1)


def make_rollout(
    T: int, B: int, observation: int, actions: int, ends: float
) -> dict[str, torch.Tensor]:
    """Random numbers in place of an environment's: only their shapes matter to the time."""
    return {
        "observations": torch.randn(T, B, observation),
        "actions": torch.randint(actions, (T, B)),
        "returns": torch.randn(T, B),
        "starts": torch.rand(T, B) < ends,
    }


def gradients(model: ActorCritic, loss: torch.Tensor) -> torch.Tensor:
    """All gradients as one vector."""
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([each.flatten() for each in found])


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Check that the three ways agree, time whole training steps, and print the ratios."""
    parser = argparse.ArgumentParser(description="Time a recurrent actor-critic's training step.")
    parser.add_argument("--steps", type=int, default=128, help="T (default: 128)")
    parser.add_argument("--environments", type=int, default=64, help="B (default: 64)")
    parser.add_argument("--observation", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--actions", type=int, default=6)
    parser.add_argument("--ends", type=float, default=0.01, help="episodes that end a step")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=fastrnn.get_num_threads())
    options = parser.parse_args(argv)

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    fastrnn.set_num_threads(options.threads)
    model = ActorCritic(options.observation, options.hidden, options.actions)
    theirs = TorchMemory(model.memory)
    ways: dict[str, Run] = {
        "fastrnn, resets=": model.with_resets,
        "torch, loop of LSTMCell": theirs.cell_loop,
        "torch, packed episodes": theirs.packed,
    }
    rollout = make_rollout(
        options.steps, options.environments, options.observation, options.actions, options.ends
    )

    found = {name: gradients(model, model.loss(rollout, run)) for name, run in ways.items()}
    expected = found["torch, loop of LSTMCell"]
    for name, vector in found.items():
        error = float((vector - expected).norm() / expected.norm())
        if error > 1e-4:
            raise AssertionError(f"{name}: gradients differ by {error:.1e} of their norm")

    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):  # in turns
        for name, run in ways.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            model.loss(rollout, run).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            best[name] = min(best[name], time.perf_counter() - start)
    ours = best["fastrnn, resets="]
    print(f"T={options.steps} B={options.environments} H={options.hidden}: seconds a training step")
    for name, seconds in best.items():
        print(f"  {name:24} {seconds:8.4f}  {seconds / ours:5.2f}x")
    return best


if __name__ == "__main__":
    main()
