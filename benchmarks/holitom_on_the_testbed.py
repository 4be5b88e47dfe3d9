"""What decides HoliTom's accuracy on the clip suite: one thing changed at a time, on the validation split.

    python benchmarks/holitom_on_the_testbed.py [-n 100] [--json FILE]

Each row answers one question about a budget of 10 % before the LLM: is it the threshold of static positions, the patch
scores that rank what moves, the averaging itself, the order and positions of what is left, or the inner stage?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from holitom import HoliTom, Merge, VideoTokens
from holitom.cli.loading import load
from holitom.evaluation import Log, accuracy_table, evaluate
from holitom.evaluation.run import UNCOMPRESSED
from holitom.methods.base import Method
from holitom.methods.baselines import RandomDrop, UniformFrames
from holitom.ops import neighbour_cosine
from holitom.video.synthetic import suite


@dataclass(frozen=True)
class Variant(Method):
    """HoliTom before the LLM with one thing exchanged.

    Args:
        scores: ``"tower"``: as published, the vision tower's attention received; ``"change"``: how much a position
            differs from the frame before; ``"norm"``: the feature's distance from its frame's mean; ``"random"``.
        averaging: False keeps only each output's anchor, as it is.
        order: ``"published"``: merged static tokens before the frames of their segment; ``"place"``: every token at its
            anchor's place in time and space.
    """

    name: ClassVar[str] = "variant"
    needs: ClassVar[frozenset] = frozenset({"scores"})

    what: str = ""
    base: HoliTom = dataclasses.field(default_factory=lambda: HoliTom(layer=None))
    scores: Literal["tower", "change", "norm", "random"] = "tower"
    averaging: bool = True
    order: Literal["published", "place"] = "published"

    def merge_video(self, video: VideoTokens) -> Merge:
        """The published map, changed as the settings say."""
        if self.scores != "tower":
            video = dataclasses.replace(video, scores=self._scores(video))
        merge = self.base.merge_video(video)
        if not self.averaging:
            merge = Merge.keep(merge.anchor, merge.inputs)
        if self.order == "place":
            order = merge.anchor.argsort()
            rank = order.argsort()
            target = torch.where(merge.target >= 0, rank[merge.target.clamp(min=0)], -1)
            merge = Merge(target, merge.weight, merge.anchor[order])
        return merge

    def _scores(self, video: VideoTokens) -> torch.Tensor:
        if self.scores == "random":
            shape = (video.frames, video.positions)
            return torch.rand(shape, generator=torch.Generator().manual_seed(0))
        if self.scores == "norm":
            return (video.features - video.features.mean(1, keepdim=True)).norm(dim=-1)
        change = 1 - neighbour_cosine(video.features)
        return torch.cat([change[:1], change])


VARIANTS: dict[str, Method] = {
    "published settings": Variant("published settings"),
    **{
        f"similarity {tau}": Variant(f"similarity {tau}", HoliTom(layer=None, similarity=tau))
        for tau in (0.8, 0.9, 0.95, 0.98, 0.995)
    },
    "scores: change over time": Variant("scores: change over time", scores="change"),
    "scores: distance from the frame's mean": Variant("scores: distance from the frame's mean", scores="norm"),
    "scores: random": Variant("scores: random", scores="random"),
    "anchors only, nothing averaged": Variant("anchors only, nothing averaged", averaging=False),
    "plain mean instead of beta blend": Variant(
        "plain mean instead of beta blend", HoliTom(layer=None, centre_weight=None)
    ),
    "every token at its anchor's place": Variant("every token at its anchor's place", order="place"),
    "similarity 0.95, scores: change over time": Variant("both", HoliTom(layer=None, similarity=0.95), scores="change"),
    "published settings, with the inner stage": HoliTom(),
    "random 10 %": RandomDrop(retention=0.1),
    "whole frames, 10 %": UniformFrames(retention=0.1),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=Path, help="a file of rows; a run found there is continued")
    options = parser.parse_args()
    pipeline = load(options.model, "cpu", "auto", None)
    clips = suite("val", options.n, 0)
    report = {}
    log = Log(options.rows, {"model": options.model, "split": "val"})
    evaluate(pipeline, clips, [UNCOMPRESSED], log)
    for name, method in VARIANTS.items():
        evaluate(pipeline, clips, [method], log, name=lambda _, name=name: name)
        entry = accuracy_table(log.rows, "uncompressed")[name]
        report[name] = entry
        mean, low, high = (100 * value for value in entry["mean"])
        tokens = 100 * entry["tokens_entering"]
        print(f"{name:45s} {mean:5.1f} [{low:.1f}, {high:.1f}]  {tokens:.1f} % of the tokens", flush=True)
    report["uncompressed"] = accuracy_table(log.rows, "uncompressed")["uncompressed"]
    if options.json:
        options.json.write_text(json.dumps({"clips": options.n, "split": "val", "rows": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()
