"""Stage 2: the language model learns to answer questions on cached visual tokens."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
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
from .data import DENSE_CLASSES, dense_targets, tokenise
from .drop import choose
from .features import STAGE2_SEED, load_vision, open_cache
from .optim import Schedule, build_optimisers
from .packed import packed_forward

QUESTIONS = 12
MIDDLE = 3


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


def pick_questions(scene: Scenes, rng: np.random.Generator) -> list[Question]:
    """Pick QUESTIONS questions: one of each task that applies, the rest from a second round."""
    first = ask(scene, 0, rng)
    missing = QUESTIONS - len(first)
    again = ask(scene, 0, rng)
    while missing > len(again):
        again += ask(scene, 0, rng)
    return first + [again[i] for i in rng.permutation(len(again))[:missing]]


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
        ids, labels = ids.view(8, QUESTIONS, -1), labels.view(8, QUESTIONS, -1)
        hidden, _ = packed_forward(model, visual, prefix, ids, MIDDLE)
        right = hits(hidden, labels, table)[1].tolist()
        for question, good in zip((q for clip in asked for q in clip), right, strict=True):
            score[question.task].append(good)
    return {task: float(np.mean(score[task])) for task in TASKS if task in score}


def train(out: Path, export: Path | None, steps: int, minutes: float | None, batch: int, lr: float, seed: int) -> None:
    """Train stage 2; resumes from ``out``/stage2.pt, and writes the model to ``out``/model and ``export``."""
    torch.manual_seed(seed)
    model, tokenizer = load_vision(out), build_tokenizer()
    language = model.model.language_model
    heads = DenseHeads(language.config.hidden_size)
    data, held_out = Data(out, "train"), Data(out, "val")
    prefix = torch.tensor(tokenizer("<|im_start|>user ")["input_ids"])
    optimisers = build_optimisers([language, heads], [model.model.image_newline], lr)
    schedule, step, words = Schedule(steps, lr, minutes), 0, {}
    parameters = [p for group in optimisers for g in group.param_groups for p in g["params"]]
    saved = out / "stage2.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        for part, weights in zip((language, heads), state["parts"], strict=True):
            part.load_state_dict(weights)
        model.model.image_newline.data.copy_(state["newline"])
        for optimiser, weights in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(weights)
        step, schedule.spent = state["step"], state["spent"]
        if state["done"]:
            return
    last_save = time.monotonic()
    window: dict[str, list[float]] = defaultdict(list)
    log = (out / "stage2.jsonl").open("a")
    while True:
        progress, rate = schedule.set(optimisers, step)
        done = progress >= 1.0
        if done or time.monotonic() - last_save > 240:
            validation = {
                keep: validate(model, held_out, tokenizer, prefix, keep) for keep in ("all", "random10", "frames4")
            }
            row = {
                "step": step,
                "seconds": round(schedule.elapsed(), 1),
                "progress": progress,
                "validation": validation,
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
            state = {
                "parts": [language.state_dict(), heads.state_dict()],
                "newline": model.model.image_newline.data,
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "step": step,
                "spent": schedule.elapsed(),
                "done": done,
            }
            torch.save(state, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").rename(saved)
            save(model, out / "model")
            if export is not None:
                save(model, export)
            last_save = time.monotonic()
        if done:
            break
        rng = np.random.default_rng([seed, step])
        if step % 200 == 0:
            data.refresh()
        rows = rng.choice(len(data), batch, replace=False)
        scenes = [data.scene(int(row)) for row in rows]
        owners = data.owners[rows]
        visual = torch.from_numpy(data.features[rows]).float()
        targets = {
            name: torch.from_numpy(np.concatenate(parts))
            for name, parts in _stack(dense_targets(s, owners[i : i + 1]) for i, s in enumerate(scenes)).items()
        }
        kept = choose(rng, progress, owners)
        if kept is not None:
            index = torch.from_numpy(kept)
            visual = visual.gather(1, index[..., None].expand(-1, -1, visual.shape[-1]))
            targets = {name: value.gather(1, index) for name, value in targets.items()}
        asked = [q for s in scenes for q in pick_questions(s, rng)]
        ids, labels = (part.view(batch, QUESTIONS, -1) for part in tokenise(tokenizer, asked, words))
        hidden, states = packed_forward(model, visual, prefix, ids, MIDDLE)
        loss, right = hits(hidden, labels, language.embed_tokens.weight)
        dense, dense_scores = heads(states, targets)
        (loss + (0.6 if progress < 0.55 else 0.3) * dense).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        for question, good in zip(asked, right.tolist(), strict=True):
            window[question.task].append(good)
        for name, value in (
            ("loss", loss.item()),
            ("dense", dense.item()),
            *(("dense_" + n, v) for n, v in dense_scores.items()),
        ):
            window[name].append(value)
        if step % 25 == 0:
            row = {"step": step, "seconds": round(schedule.elapsed(), 1), "progress": progress, "lr": rate}
            log.write(
                json.dumps({**row, **{name: round(float(np.nanmean(v)), 4) for name, v in window.items()}}) + "\n"
            )
            log.flush()
            window.clear()
        step += 1
    log.close()


def _stack(parts):
    """Turn dictionaries of arrays into one dictionary of lists."""
    out = defaultdict(list)
    for part in parts:
        for name, value in part.items():
            out[name].append(value)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--export", type=Path, default=None, help="also write the model here, every few minutes")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    train(**vars(options))
