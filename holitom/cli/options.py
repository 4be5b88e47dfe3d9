"""The options that several commands have, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

POSITIONS = (
    "Rotary positions of the tokens that stay: `original`, their places in the full prompt, or `compact`, without gaps."
    "  [default: the method's own]"
)

Video = Annotated[str, typer.Argument(help="A video file, an animated GIF, or a folder of images.")]
Model = Annotated[
    str | None,
    typer.Option(help="Path or hub id of a checkpoint, or `tiny`, the one inside.  [default: tiny, a toy]"),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="A method of `holitom methods`, with settings as name:key=value,..., or `none`.  [default: what the "
        "checkpoint recommends, else holitom]"
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="A method of `holitom methods`; repeat for several, or `all`.  [default: holitom]"),
]
Retention = Annotated[
    float | None,
    typer.Option(
        help="The method's setting `retention`, in (0, 1]: with most methods the share of the visual tokens that enter "
        "the LLM.  [default: what the checkpoint recommends, else the method's own]"
    ),
]
Retentions = Annotated[
    list[float] | None,
    typer.Option("--retention", help="Share of visual tokens; repeat for several.  [default: 0.1]"),
]
Positions = Annotated[str | None, typer.Option(help=POSITIONS)]
EachPositions = Annotated[list[str] | None, typer.Option("--positions", help=f"{POSITIONS} Repeat for both.")]
Tower = Annotated[
    str | None,
    typer.Option(
        help="A method inside the vision tower in front of it, `renewal` for example, which computes once what stays "
        "the same from frame to frame.  [default: none]"
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, help="Frames to sample.  [default: what the model was made for, else 32]")
]
Window = Annotated[
    float | None, typer.Option(help="Read long videos in windows of so many seconds.  [default: 60 with --tokens]")
]
Tokens = Annotated[
    int | None, typer.Option(min=1, help="Visual tokens that a video read in windows may have in the LLM.")
]
Fps = Annotated[float | None, typer.Option(help="Frames to sample per second.  [default in windows: 1]")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="The longest answer.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto.  [default: a GPU if any]")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Attention = Annotated[str | None, typer.Option(help="sdpa, eager, flash_attention_2, ...")]
Seed = Annotated[int, typer.Option(min=0, help="Other seeds give other clips.")]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder for rows, table and plot; a run found there is continued.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
