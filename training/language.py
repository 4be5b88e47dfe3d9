"""Stage 2: the language model learns to answer questions on cached visual tokens."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from holitom.video.synthetic import TASKS, Question, Scenes
from holitom.video.synthetic.questions import ask
from holitom.video.synthetic.scene import sample_scenes
from holitom.video.synthetic.suite import BLOCK, seed_of

from .build import build_tokenizer, save
from .checkpoint import Checkpoint
from .data import DENSE_CLASSES, dense_targets, tokenise
from .drop import choose
from .features import STAGE2_SEED, load_vision, open_cache
from .optim import Schedule, build_optimisers
from .packed import packed_forward

QUESTIONS = 12
MIDDLE = 3
KEEPS = ("all", "random10", "frames4")
SAVE_EVERY = 240.0
"""Seconds between checkpoints, each with a validation and an export."""


class Data:
    """Cached clips of a split with their scenes; the scenes are sampled anew from their seeds."""

    def __init__(self, out: Path, split: str) -> None:
        self.features, self.owners = open_cache(out, split, 0, "r")
        self.split, self.done_file = split, out / "features" / f"{split}.done"
        self.blocks: list[Scenes] = []
        self.refresh()

    def refresh(self) -> None:
        """Take in the clips that have been cached since."""
        for number in range(len(self.blocks), int(self.done_file.read_text())):
            layout = seed_of(self.split, STAGE2_SEED, number).spawn(3)[0]
            self.blocks.append(sample_scenes(np.random.Generator(np.random.PCG64(layout)), BLOCK))

    def __len__(self) -> int:
        return len(self.blocks) * BLOCK

    def scene(self, clip: int) -> Scenes:
        """Return the scene of a clip, as a batch of one."""
        at = clip % BLOCK
        return self.blocks[clip // BLOCK].take(slice(at, at + 1))


class DenseHeads(nn.Module):
    """Auxiliary read-outs of the visual tokens in the middle of the language model; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in DENSE_CLASSES.items()})

    def forward(self, states: torch.Tensor, targets: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean cross-entropy over the attributes, and the accuracy of each."""
        normed = self.norm(states)
        losses, scores = [], {}
        for name, head in self.heads.items():
            logits, target = head(normed).flatten(0, 1), targets[name].flatten()
            losses.append(F.cross_entropy(logits, target, ignore_index=-100))
            known = target != -100
            scores[name] = (logits.argmax(-1) == target)[known].float().mean().item()
        return torch.stack(losses).mean(), scores


@dataclass
class Batch:
    """B clips: ``visual`` (B, K, D), dense ``targets`` (B, K) each, ``ids`` and ``labels`` (B, Q, S), questions."""

    visual: torch.Tensor
    targets: dict[str, torch.Tensor]
    ids: torch.Tensor
    labels: torch.Tensor
    questions: list[Question]

    def to(self, device: str) -> Batch:
        """Move the tensors."""
        targets = {name: value.to(device) for name, value in self.targets.items()}
        return Batch(self.visual.to(device), targets, self.ids.to(device), self.labels.to(device), self.questions)


def pick_questions(scene: Scenes, rng: np.random.Generator) -> list[Question]:
    """Pick QUESTIONS questions: one of each task that applies, the rest from a second round."""
    first = ask(scene, 0, rng)
    missing = QUESTIONS - len(first)
    again = ask(scene, 0, rng)
    while missing > len(again):
        again += ask(scene, 0, rng)
    return first + [again[i] for i in rng.permutation(len(again))[:missing]]


def draw_batch(data: Data, rng: np.random.Generator, progress: float, batch: int, tokenizer, words: dict) -> Batch:
    """Draw clips, drop some of their tokens, ask questions."""
    rows = rng.choice(len(data), batch, replace=False)
    scenes = [data.scene(int(row)) for row in rows]
    owners = data.owners[rows]
    visual = torch.from_numpy(data.features[rows]).float()
    labelled = [dense_targets(scene, owners[i : i + 1]) for i, scene in enumerate(scenes)]
    targets = {name: torch.from_numpy(np.concatenate([part[name] for part in labelled])) for name in labelled[0]}
    kept = choose(rng, progress, owners)
    if kept is not None:
        index = torch.from_numpy(kept)
        visual = visual.gather(1, index[..., None].expand(-1, -1, visual.shape[-1]))
        targets = {name: value.gather(1, index) for name, value in targets.items()}
    asked = [question for scene in scenes for question in pick_questions(scene, rng)]
    ids, labels = (part.view(batch, QUESTIONS, -1) for part in tokenise(tokenizer, asked, words))
    return Batch(visual, targets, ids, labels, asked)


def hits(hidden: torch.Tensor, labels: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and, per question, whether the answer word is right, from hidden states and labels (B, Q, S)."""
    places = labels >= 0
    logits = hidden[places] @ table.T
    losses = F.cross_entropy(logits, labels[places], reduction="none").view(-1, 2)
    right = (logits.argmax(-1) == labels[places]).view(-1, 2)[:, 0]
    return losses[:, 0].mean() + 0.1 * losses[:, 1].mean(), right


@torch.no_grad()
def validate(model, data: Data, tokenizer, prefix: torch.Tensor, keep: str = "all") -> dict[str, float]:
    """Accuracy by task on the cached validation clips with ``keep`` = all, random10 or frames4 tokens."""
    score: dict[str, list[float]] = defaultdict(list)
    table, words = model.model.language_model.embed_tokens.weight, {}
    for start in range(0, len(data), 8):
        rng = np.random.default_rng([99, start])
        rows = range(start, start + 8)
        asked = [pick_questions(data.scene(row), rng) for row in rows]
        visual = torch.from_numpy(np.array(data.features[start : start + 8])).float()
        if keep == "random10":
            index = torch.from_numpy(np.sort(rng.random(visual.shape[:2]).argsort(1)[:, :78], 1))
            visual = visual.gather(1, index[..., None].expand(-1, -1, visual.shape[-1]))
        elif keep == "frames4":
            visual = visual.view(8, 16, -1, visual.shape[-1])[:, [2, 6, 9, 13]].flatten(1, 2)
        ids, labels = tokenise(tokenizer, [q for clip in asked for q in clip], words)
        ids, labels = (part.view(8, QUESTIONS, -1).to(prefix.device) for part in (ids, labels))
        hidden, _ = packed_forward(model, visual.to(prefix.device), prefix, ids, MIDDLE)
        right = hits(hidden, labels, table)[1].tolist()
        for question, good in zip((q for clip in asked for q in clip), right, strict=True):
            score[question.task].append(good)
    return {task: float(np.mean(score[task])) for task in TASKS if task in score}


class Newline(nn.Module):
    """Holds the model's newline embedding as a module, so that a checkpoint takes it like the other parts."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.weight = parameter


def train(
    out: Path, export: Path | None, steps: int, minutes: float | None, batch: int, lr: float, seed: int, device: str
) -> None:
    """Train stage 2; resumes from ``out``/stage2.pt, and writes the model to ``out``/model and ``export``."""
    torch.manual_seed(seed)
    model, tokenizer = load_vision(out, device), build_tokenizer()
    language, newline = model.model.language_model, Newline(model.model.image_newline)
    heads = DenseHeads(language.config.hidden_size).to(device)
    data, held_out = Data(out, "train"), Data(out, "val")
    prefix = torch.tensor(tokenizer("<|im_start|>user ")["input_ids"], device=device)
    optimisers = build_optimisers([language, heads], [newline.weight], lr)
    parameters = [p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
    schedule, words = Schedule(steps, lr, minutes), {}
    checkpoint = Checkpoint(out / "stage2.pt", [language, heads, newline], optimisers)
    state = checkpoint.load(schedule, device) or {"step": 0, "done": False}
    step, last_save = state["step"], time.monotonic()
    window: dict[str, list[float]] = defaultdict(list)
    with (out / "stage2.jsonl").open("a") as log:
        while not state["done"]:
            progress, rate = schedule.set(optimisers, step)
            row = {"step": step, "seconds": round(schedule.elapsed(), 1), "progress": progress, "lr": rate}
            done = progress >= 1.0
            if done or time.monotonic() - last_save > SAVE_EVERY:
                row["validation"] = {keep: validate(model, held_out, tokenizer, prefix, keep) for keep in KEEPS}
                log.write(json.dumps(row) + "\n")
                log.flush()
                checkpoint.save(schedule, step=step, done=done)
                for folder in filter(None, (out / "model", export)):
                    save(model, folder)
                last_save = time.monotonic()
            if done:
                break
            if step % 200 == 0:
                data.refresh()
            drawn = draw_batch(data, np.random.default_rng([seed, step]), progress, batch, tokenizer, words).to(device)
            hidden, states = packed_forward(model, drawn.visual, prefix, drawn.ids, MIDDLE)
            loss, right = hits(hidden, drawn.labels, language.embed_tokens.weight)
            dense, dense_scores = heads(states, drawn.targets)
            (loss + (0.6 if progress < 0.55 else 0.3) * dense).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            for question, good in zip(drawn.questions, right.tolist(), strict=True):
                window[question.task].append(good)
            for name, value in {"loss": loss.item(), "dense": dense.item(), **dense_scores}.items():
                window[name if name in ("loss", "dense") else f"dense_{name}"].append(value)
            if step % 25 == 0:
                means = {name: round(float(np.nanmean(values)), 4) for name, values in window.items()}
                log.write(json.dumps({**row, **means}) + "\n")
                log.flush()
                window.clear()
            step += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--export", type=Path, default=None, help="also write the model here, every few minutes")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    train(**vars(parser.parse_args()))
