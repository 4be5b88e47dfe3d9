"""Many videos and several questions into one table, which a second run continues: `holitom caption` from Python.

pip install 'holitom[corpora]'          for Parquet; OUT.jsonl needs nothing
python examples/corpus.py               synthetic clips, the tiny model inside the package
python examples/corpus.py films/ "What happens?" MODEL
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from offline import QUESTION, clips, given

from holitom import Pipeline, parse
from holitom.corpus import Plan, PromptReader, Store, Totals, TransformersEngine, list_videos, run

OUT = "answers.jsonl"


def main(arguments: Sequence[str]) -> None:
    """Writes one row for each video and question."""
    folder, question, checkpoint = given(arguments or (str(clips(4)), QUESTION))
    questions = (question, "How many objects are there?")
    plan = Plan(list_videos(folder), questions, workers=0)  # above 0: processes that read ahead
    engine = TransformersEngine(Pipeline.from_pretrained(checkpoint), parse("spread:retention=0.25"), max_new_tokens=16)
    totals = Totals(plan.rows)
    settings = {"model": checkpoint, "questions": list(questions)}
    with Store(OUT, settings, seen=totals.add) as store:
        run(plan, engine, PromptReader(checkpoint, questions, plan.frames), store)
        engine.close()
        print(totals.summary(store.settings)["ratio"])
    for line in Path(OUT).read_text("utf-8").splitlines()[:4]:
        print(line[:100])


if __name__ == "__main__":
    main(sys.argv[1:])
