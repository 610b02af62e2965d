"""Seconds of one batched evaluation of many coalitions, against a loop over them."""

from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from boards import OUT, Board, board, write
from repair import machine
from shapprune.model.inference import evaluating
from shapprune.model.masking import masked

COALITIONS, TIMES = 64, 7
KINDS = ("walk", "random")


def loop(played: Board, coalitions: Tensor) -> Tensor:
    """The ASR of each coalition by itself, image by image or all images at once."""
    answers = []
    for coalition in coalitions:
        with masked(played.model, played.neurons, coalition[None].float()):
            answers.append(played.model(played.images).argmax(1) == played.labels)
    return torch.stack(answers).float().mean(1)


def image_loop(played: Board, coalitions: Tensor) -> Tensor:
    answers = []
    for coalition in coalitions:
        with masked(played.model, played.neurons, coalition[None].float()):
            hits = [
                played.model(image[None]).argmax(1) == label
                for image, label in zip(played.images, played.labels, strict=True)
            ]
        answers.append(torch.cat(hits))
    return torch.stack(answers).float().mean(1)


def coalitions_of(kind: str, n: int) -> Tensor:
    """A walk's, each without one neuron more; or random ones, that share nothing."""
    generator = torch.Generator().manual_seed(0)
    if kind == "walk":
        rank = torch.randperm(n, generator=generator)
        return rank >= torch.arange(COALITIONS)[:, None]
    return torch.rand(COALITIONS, n, generator=generator) < 0.9


def batching(name: str) -> None:
    played = board(name)
    game = played.game()
    ways = {"batched": game, "loop": partial(loop, played), "images": partial(image_loop, played)}
    for kind in KINDS:
        file = OUT / f"batching_{name}_{kind}.json"
        if file.exists():
            continue
        coalitions = coalitions_of(kind, game.n)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        with evaluating(played.model), torch.no_grad():
            answers = [play(coalitions) for play in ways.values()]
            assert all(torch.allclose(answers[0], answer) for answer in answers[1:])
            for _ in range(TIMES):  # in turn, so that all meet the same disturbances
                for way, play in ways.items():
                    start = perf_counter()
                    play(coalitions)
                    seconds[way].append(perf_counter() - start)
        write(
            file,
            {
                "game": name,
                "batching": kind,
                "coalitions": COALITIONS,
                "images": game.m,
                **{way: median(times) for way, times in seconds.items()},
                **machine(),
            },
        )
        print(name, kind, {w: round(median(t), 4) for w, t in seconds.items()}, flush=True)
