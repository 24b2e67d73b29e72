"""Train the tagger of `deid.tagger` on generated notes and write its weights into the package.

`python -m sim.notes.train --notes 42000 --epochs 3 OUT.npz`: about half an hour on two cores. With `--begin WEIGHTS` it
goes on from weights of before and adds words to their vocabulary: enough when the notes have become a little wider
(`--notes 12000 --epochs 1 --rate 0.001`). No text of anyone is read: the notes come from `sim.notes.documents`. The same
seed gives the same notes and, on the same machine with the same number of threads, the same weights up to rounding.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from deid.lexicon.language import language
from deid.tagger import (
    BETWEEN,
    BITS,
    CATEGORIES,
    CLASSES,
    DILATIONS,
    PREFIXES,
    SHAPES,
    STANDS,
    SUFFIXES,
    WIDTH,
    kind_of,
    layout,
    membership,
    stored,
)
from sim.notes.documents import Note, notes

ROW = 512  # tokens of one row of a batch
GAP = 24  # empty tokens between two notes, as when they are read
MIN_NOTES = 25  # a word in fewer notes than this is learned as an unknown one
FORGET_WORD = 0.12  # how often a word is hidden, so that its looks and its place must do
FORGET_LISTS = 0.12  # how often the lists of names and places are hidden
NAME_LISTS = ((1 << 9) - 1) << (BITS - 14)
SIZES = {"plain": 48, "prefix": 24, "suffix": 40, "shape": 16}


MEAN_DECAY = 0.99  # of the running mean of the weights, which is what is kept

Keep = Callable[[list[str], "Network"], None]


class Corpus:
    """Notes as arrays, one after the other."""

    def __init__(self, source: Iterable[Note]) -> None:
        self.types: dict[str, int] = {"": 0}
        self.counts: Counter[str] = Counter()
        parts: list[list[np.ndarray[Any, Any]]] = [[], [], []]
        empty = np.zeros(GAP, np.int32)
        for note in source:
            words, starts, ends, stands = layout(note.text)
            labels = np.zeros(len(words), np.int32)
            at = 0
            for start, end, category in note.spans:
                while at < len(words) and ends[at] <= start:
                    at += 1
                first = True
                while at < len(words) and starts[at] < end:
                    labels[at] = 1 + 2 * CATEGORIES.index(category) + (0 if first else 1)
                    first = False
                    at += 1
            self.counts.update(set(words))
            for word in words:
                self.types.setdefault(word, len(self.types))
            ids = np.fromiter((self.types[word] for word in words), np.int32, len(words))
            for part, values in zip(parts, (ids, np.array(stands, np.int32), labels), strict=True):
                part += [values, empty]
        ids, stands_, labels_ = (np.concatenate(part) for part in parts)
        rows = len(ids) // ROW
        self.ids, self.stands, self.labels = (
            a[: rows * ROW].reshape(rows, ROW) for a in (ids, stands_, labels_)
        )


class Network(nn.Module):
    """The network of `deid.tagger`, to be trained."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.plain = nn.Embedding(words, SIZES["plain"])
        self.prefix = nn.Embedding(PREFIXES, SIZES["prefix"])
        self.suffix = nn.Embedding(SUFFIXES, SIZES["suffix"])
        self.shape = nn.Embedding(SHAPES, SIZES["shape"])
        self.enter = nn.Linear(sum(SIZES.values()) + BITS, WIDTH)
        self.stand = nn.Embedding(STANDS, WIDTH)
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=d, dilation=d) for d in DILATIONS)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in DILATIONS)
        self.leave = nn.Linear(WIDTH, CLASSES)
        self.drop = nn.Dropout(0.1)
        for table in (self.plain, self.prefix, self.suffix, self.shape, self.stand):
            nn.init.normal_(table.weight, std=0.1)

    def forward(
        self, plain: Any, prefix: Any, suffix: Any, shape: Any, member: Any, stand: Any, real: Any
    ) -> Any:
        """Return the scores of each class for each token."""
        whole = torch.cat(
            (self.plain(plain), self.prefix(prefix), self.suffix(suffix), self.shape(shape), member), dim=-1
        )
        x = torch.relu(self.enter(whole) + self.stand(stand)) * real
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = torch.relu(conv(x.transpose(1, 2)).transpose(1, 2))
            x = norm(x + self.drop(y)) * real
        return self.leave(self.drop(x))

    def take(self, weights: Mapping[str, Any]) -> None:
        """Begin with weights of before, named as `deid.tagger` reads them."""

        def put(parameter: Any, value: Any) -> None:
            parameter.data.copy_(torch.from_numpy(np.asarray(value, np.float32)))

        for name in ("plain", "prefix", "suffix", "shape", "stand"):
            put(getattr(self, name).weight, weights[name])
        for name in ("enter", "leave"):
            put(getattr(self, name).weight, weights[name].T)
            put(getattr(self, name).bias, weights[f"{name}_bias"])
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            put(
                conv.get_parameter("weight"),
                np.stack([weights[f"conv{place}.{k}"].T for k in range(3)], axis=2),
            )
            put(conv.bias, weights[f"bias{place}"])
            put(norm.weight, weights[f"gain{place}"])
            put(norm.bias, weights[f"shift{place}"])

    def exported(self) -> dict[str, Any]:
        """Return the weights under the names that `deid.tagger` reads."""
        out = {name: getattr(self, name).weight for name in ("plain", "prefix", "suffix", "shape", "stand")}
        out |= {
            "enter": self.enter.weight.T,
            "enter_bias": self.enter.bias,
            "leave": self.leave.weight.T,
            "leave_bias": self.leave.bias,
        }
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            out |= {f"conv{place}.{k}": conv.get_parameter("weight")[:, :, k].T for k in range(3)}
            out |= {f"bias{place}": conv.bias, f"gain{place}": norm.weight, f"shift{place}": norm.bias}
        return {name: value.detach().numpy() for name, value in out.items()}


def train(
    corpus: Corpus,
    keep: Keep,
    *,
    epochs: int,
    seed: int,
    code: str,
    minutes: float,
    rate: float,
    begin: Mapping[str, Any] | None = None,
    batch_rows: int = 12,
) -> None:
    """Give the vocabulary and the network's running mean to `keep`, now and then and at the end. Ends with the epochs or
    after `minutes`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    bits = membership(language(code))
    kinds = [kind_of(word, bits) if word else ("", 0, 0, 0, 0) for word in corpus.types]
    totals: Counter[str] = Counter()
    for word, kind in zip(corpus.types, kinds, strict=True):
        totals[kind[0]] += corpus.counts[word]
    vocabulary = ["", *sorted(word for word, count in totals.items() if count >= MIN_NOTES and word)]
    if begin is not None:
        before = str(begin["vocabulary"]).split(BETWEEN)
        vocabulary = before + sorted(set(vocabulary) - set(before))
        begin = {**begin, "plain": _widened(begin["plain"], len(vocabulary))}
    place = {word: at for at, word in enumerate(vocabulary)}
    plain = torch.tensor([place.get(kind[0], 0) for kind in kinds])
    prefix, suffix, shape = (torch.tensor([kind[i] for kind in kinds]) for i in (1, 2, 3))
    lists = np.array([kind[4] for kind in kinds], np.int64)
    network = Network(len(vocabulary))
    if begin is not None:
        network.take(begin)
    steps = epochs * (len(corpus.ids) // batch_rows)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=steps + 1, pct_start=0.08
    )
    mean = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(MEAN_DECAY),  # type: ignore[no-untyped-call]
    )
    begun, done, total = time.monotonic(), 0, 0.0
    _say(f"{len(corpus.ids) * ROW} tokens, {len(vocabulary)} words, {steps} steps")
    for _ in range(epochs):
        order = rng.permutation(len(corpus.ids))
        for first in range(0, len(order) - batch_rows + 1, batch_rows):
            chosen = order[first : first + batch_rows]
            ids = corpus.ids[chosen]
            seen = lists[ids]
            seen = np.where(rng.random(seen.shape) < FORGET_LISTS, seen & ~NAME_LISTS, seen)
            member = torch.from_numpy(((seen[..., None] >> np.arange(BITS)) & 1).astype(np.float32))
            index = torch.from_numpy(ids.astype(np.int64))
            hidden = torch.from_numpy(rng.random(ids.shape) >= FORGET_WORD)
            real = torch.from_numpy((ids > 0).astype(np.float32))[..., None]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = network(
                    plain[index] * hidden,
                    prefix[index],
                    suffix[index],
                    shape[index],
                    member,
                    torch.from_numpy(corpus.stands[chosen].astype(np.int64)),
                    real,
                )
            loss = nn.functional.cross_entropy(
                scores.float()[ids > 0], torch.from_numpy(corpus.labels[chosen][ids > 0].astype(np.int64))
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            mean.update_parameters(network)
            done += 1
            total += float(loss.detach())
            if done % 10 == 0:
                _say(f"step {done} loss {total / 10:.4f} {time.monotonic() - begun:.0f} s")
                total = 0.0
            if done % 100 == 0:
                keep(vocabulary, cast(Network, mean.module))
        if time.monotonic() - begun > minutes * 60:
            break
    keep(vocabulary, cast(Network, mean.module))


def _widened(plain: np.ndarray[Any, Any], words: int) -> np.ndarray[Any, Any]:
    """Return the rows of the words of before, and for each new word the row of an unknown one to begin with."""
    return np.concatenate((plain, np.repeat(plain[:1], words - len(plain), axis=0)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--notes", type=int, default=42_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20_26)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--language", default="en")
    parser.add_argument("--rate", type=float, default=3e-3, help="of learning, at most")
    parser.add_argument("--begin", type=Path, help="weights to go on from")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    corpus = Corpus(notes(chosen.seed, chosen.notes))

    def keep(vocabulary: list[str], network: Network) -> None:
        with chosen.out.open("wb") as file:
            np.savez_compressed(file, **stored(vocabulary, network.exported()))

    begin = None
    if chosen.begin is not None:
        with np.load(chosen.begin, allow_pickle=False) as weights:
            begin = {name: weights[name] for name in weights.files}
    train(
        corpus,
        keep,
        epochs=chosen.epochs,
        seed=chosen.seed,
        code=chosen.language,
        minutes=chosen.minutes,
        rate=chosen.rate,
        begin=begin,
    )


if __name__ == "__main__":
    main()
