"""What a decode step costs: operations that the host starts, and bytes that the device reads.

    python benchmarks/decode_step.py [--preset llava-onevision-7b] [--out FILE] [--against RESULTS ...]

A small model of both, to set beside measurements. The host starts the operations of an eager step one by one: their
number is counted in a decoder of the preset's depth and heads, but narrow, because it does not depend on width. The
device reads all weights once and the keys and values of every row; with a mask, transformers repeats keys and values
for all query heads of a group first, so they are read, written and read again: 1 + 2 g times the bytes, for g query
heads to a key head. What a step takes is the longer of the two, at BANDWIDTH (10^12 bytes a second; 3.35: an H100) and
at the time of one operation. A compiled step has no such time, because a CUDA graph is started as one; but a static
cache always has a mask.

RESULTS are results.json of `holitom bench --compile`. The time of one operation is that of the first one's uncompressed
eager step, divided by its operations; all else is then predicted. Without RESULTS it is --operation microseconds, which
is an assumption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from overhead import build, prompt
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from holitom import HoliTom
from holitom.bench import load
from holitom.bench.measure import NEXT
from holitom.bench.presets import config
from holitom.cost import ModelShape, kv_cache_bytes
from holitom.methods import Method
from holitom.methods.baselines import Uncompressed
from holitom.models.transformers_names import cache_argument
from holitom.resume import write_json

SHOWN = ("uncompressed", "holitom", "spread")  # of RESULTS


class Started(TorchDispatchMode):
    """Counts operations that compute, fill or copy; views and allocations are free."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = function._schema.returns
        view = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        self.count += not view and "empty" not in function._schema.name
        return function(*args, **(kwargs or {}))


@torch.inference_mode()
def operations(model: Any, method: Method, equal: bool) -> int:
    """Those of one decode step behind two prompts, of equal length or not."""
    given = prompt(500)
    [row], pixels = given["input_ids"], given["pixel_values_videos"].repeat(2, 1, 1, 1, 1)
    longer = row if equal else torch.cat([row, row[-4:]])
    padded = torch.nn.functional.pad(row, (len(longer) - len(row), 0))
    ids = torch.stack([longer, padded])
    mask = torch.stack([torch.ones_like(longer), (torch.arange(len(longer)) >= len(longer) - len(row)).long()])
    with method(model):
        cache = {cache_argument(model.forward): DynamicCache(config=model.get_decoder().config)}
        model(input_ids=ids, attention_mask=mask, pixel_values_videos=pixels, use_cache=True, **cache)
        for counted in (Started(), Started()):  # the first step sets things up
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            given_mask = {} if equal else {"attention_mask": mask}
            with counted:
                model(input_ids=ids[:, -1:], position_ids=mask.cumsum(1)[:, -1:] - 1, **given_mask, **cache)
    return counted.count


def measured(path: Path, shape: ModelShape) -> list[dict[str, Any]]:
    """What a benchmark found of each method: seconds of a step, whether rows are padded, bytes of its KV cache."""
    report = load(path)
    batch, found = report.settings["batch"], []
    for label, entry in report.results().items():
        if label.partition(":")[0] not in SHOWN:
            continue
        tokens = report.methods[label]["tokens_per_layer"]  # of the whole batch
        exact = label.startswith("uncompressed") or "exact=true" in label.lower()
        found.append(
            {
                "batch": batch,
                "method": label,
                "padded": batch > 1 and (bool(report.settings.get("longer")) or not exact),
                "kv": batch * kv_cache_bytes(shape, [count // batch for count in tokens]),
                "eager": entry["seconds"][NEXT]["median"],
                "compiled": median(report.compiled[label]["seconds"]) if label in report.compiled else None,
            }
        )
    return found


def main() -> None:
    """Prints the counts and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="llava-onevision-7b")
    parser.add_argument("--bandwidth", type=float, default=3.35, help="10^12 bytes a second")
    parser.add_argument("--operation", type=float, default=10.0, help="microseconds of the host for one operation")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="RESULTS")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    full = config(options.preset)
    decoder, shape = full.text_config, ModelShape.from_config(full)
    heads, kv_heads = decoder.num_attention_heads, decoder.num_key_value_heads
    narrow = build(decoder.num_hidden_layers, 8 * heads, heads, kv_heads)
    methods = {"uncompressed": Uncompressed(), "compressed": HoliTom(retention=0.25)}
    counts = {
        name: {kind: operations(narrow, method, kind == "equal rows") for kind in ("equal rows", "padded rows")}
        for name, method in methods.items()
    }
    weights, masked = 2 * _parameters(decoder), 1 + 2 * heads // kv_heads
    rows = [row for path in options.against for row in measured(path, shape)]
    operation = options.operation * 1e-6
    if rows:
        operation = rows[0]["eager"] / counts["uncompressed"]["padded rows" if rows[0]["padded"] else "equal rows"]
    rows = rows or _made_up(shape)
    for row in rows:
        kind = "uncompressed" if row["method"].startswith("uncompressed") else "compressed"
        host = operation * counts[kind]["padded rows" if row["padded"] else "equal rows"]
        read = {padded: weights + (masked if padded else 1) * row["kv"] for padded in (False, True)}
        row["eager model"] = max(host, read[row["padded"]] / options.bandwidth / 1e12)
        row["compiled model"] = read[True] / options.bandwidth / 1e12
    found = {"preset": options.preset, "bandwidth": options.bandwidth, "weights": weights, "masked": masked}
    found |= {"operations": counts, "operation": operation, "measured": bool(options.against), "rows": rows}
    found["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(f"{options.preset}: {weights / 1e9:.2f} GB of weights; keys and values count {masked} times under a mask")
    for name, each in counts.items():
        print(f"operations of a step, {name}: " + ", ".join(f"{kind} {count}" for kind, count in each.items()))
    print(
        f"{1e6 * operation:.1f} us for one operation{'' if options.against else ' (assumed)'}; milliseconds of a step:"
    )
    print(f"{'batch':>5} {'method':<28}{'KV MB':>8}{'eager':>9}{'model':>9}{'compiled':>10}{'model':>9}")
    for row in rows:
        cells = (row[name] for name in ("eager", "eager model", "compiled", "compiled model"))
        times = " ".join("        " if cell is None else f"{1e3 * cell:8.1f}" for cell in cells)
        print(f"{row['batch']:>5} {row['method']:<28}{row['kv'] / 1e6:>8.0f} {times}")
    if options.out:
        write_json(options.out, found)


def _parameters(decoder: Any) -> int:
    """Of the matrices that a step reads: all but the embedding, of which it reads a row."""
    from transformers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(decoder)
    inside = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("embed_tokens"))
    return inside + decoder.vocab_size * decoder.hidden_size  # the output head


def _made_up(shape: ModelShape) -> list[dict[str, Any]]:
    """32 frames of 196 tokens and 41 others, whole and at a tenth, for batches in which keys come to matter."""
    rows = []
    for batch in (1, 8, 32):
        for name, tokens in (("uncompressed", 32 * 196 + 41), ("a tenth", 32 * 196 // 10 + 41)):
            kv = batch * kv_cache_bytes(shape, [tokens] * shape.depth)
            rows.append({"batch": batch, "method": name, "padded": False, "kv": kv, "eager": None, "compiled": None})
    return rows


if __name__ == "__main__":
    main()
