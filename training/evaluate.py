"""Accuracy of a saved model by task: uncompressed, and with the two naive ways of dropping tokens.

The clips come from the test split (or another), never from the training. The language model runs all questions of a
clip in one pass (training/packed.py), which gives the answers of the model's own forward.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from holitom.video.synthetic import FRAMES, TASKS
from holitom.video.synthetic.suite import BLOCK, block

from .build import CELLS
from .data import cell_owner, to_pixels, tokenise
from .packed import packed_forward
from .vision import encode

SETTINGS = ("all", "random 25 %", "random 10 %", "4 of 16 frames", "2 of 16 frames")
LEAKS = ("random 25 %", "objects 25 %", "changing 25 %", "random 10 %", "objects 10 %", "changing 10 %")
"""Same budgets, spent at random, on cells with objects first, or on the cells that change most from frame to frame. A
task that reads its answer off the density of the kept tokens does much worse with the last two than at random."""
CHANCE = "always the most frequent answer"


def keep(setting: str, visual: torch.Tensor, owners: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Keep some of the visual tokens (1, N, D) of a clip with cell owners (T, CELLS)."""
    total = visual.shape[1]
    if setting.endswith("%"):
        kind, share = setting.split()[:2]
        score = rng.random(total)
        if kind == "objects":
            score += (owners >= 0).reshape(-1)
        elif kind == "changing":
            change = visual.view(FRAMES, CELLS, -1).diff(dim=0).norm(dim=-1)
            score = torch.cat([change[:1], change]).flatten().numpy()
        return visual[:, np.sort(np.argsort(-score)[: round(total * int(share) / 100)])]
    if setting.endswith("frames"):
        count = int(setting.split()[0])
        frames = ((np.arange(count) + 0.5) * FRAMES / count).astype(int)
        return visual.view(1, FRAMES, CELLS, -1)[:, frames].flatten(1, 2)
    return visual


@torch.no_grad()
def evaluate(folder: Path, split: str, n: int, settings: tuple[str, ...] = SETTINGS, seed: int = 0) -> dict[str, Any]:
    """Measure the model in ``folder`` on the first ``n`` clips of a split."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    table = model.model.language_model.embed_tokens.weight
    prefix = torch.tensor(tokenizer("<|im_start|>user ")["input_ids"])
    right: dict[str, dict[str, list[bool]]] = {setting: defaultdict(list) for setting in settings}
    answers: dict[str, list[str]] = defaultdict(list)
    words: dict[str, list[int]] = {}
    for number in range(-(-n // BLOCK)):
        drawn = block(split, number, seed, with_owner=True)
        owners = cell_owner(drawn.owner)
        for b in range(min(BLOCK, n - number * BLOCK)):
            visual = encode(model, to_pixels(drawn.frames[b], degrade=False)).flatten(0, 1)[None]
            questions = drawn.questions[b]
            ids, labels = tokenise(tokenizer, questions, words)
            first = labels.ge(0).int().argmax(1)
            for setting in settings:
                rng = np.random.default_rng([seed, number, b])
                hidden, _ = packed_forward(model, keep(setting, visual, owners[b], rng), prefix, ids[None], 1)
                guess = (hidden[0, torch.arange(len(ids)), first] @ table.T).argmax(-1)
                good = (guess == labels[torch.arange(len(ids)), first]).tolist()
                for question, hit in zip(questions, good, strict=True):
                    right[setting][question.task].append(hit)
            for question in questions:
                answers[question.task].append(question.answer)
    accuracy = {
        setting: {task: round(float(np.mean(tasks[task])), 4) for task in TASKS if task in tasks}
        for setting, tasks in right.items()
    }
    accuracy[CHANCE] = {
        task: round(max(given.count(word) for word in set(given)) / len(given), 4)
        for task, given in sorted(answers.items(), key=lambda item: TASKS.index(item[0]))
    }
    counts = {task: len(answers[task]) for task in TASKS if task in answers}
    return {"split": split, "seed": seed, "clips": n, "questions": counts, "accuracy": accuracy}


def show(result: dict) -> str:
    """Lay the result out as a Markdown table."""
    columns = list(result["accuracy"])
    lines = ["| task | questions | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for task, count in result["questions"].items():
        cells = " | ".join(f"{100 * result['accuracy'][c][task]:.1f}" for c in columns)
        lines.append(f"| {task} | {count} | {cells} |")
    means = " | ".join(f"{100 * np.mean(list(result['accuracy'][c].values())):.1f}" for c in columns)
    lines.append(f"| mean of tasks | {sum(result['questions'].values())} | {means} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("holitom/assets/tiny"))
    parser.add_argument("--split", default="test")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--leaks", action="store_true", help="check whether tasks read the density of the kept tokens")
    options = parser.parse_args()
    measured = evaluate(options.model, options.split, options.n, LEAKS if options.leaks else SETTINGS)
    print(show(measured))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(measured, indent=2) + "\n")
