"""The user's question: which tokens of a prompt it is, and what a method gets to see of it.

A method that looks at the question (``needs`` has ``"question"``) merges a video by it before the LLM. Which tokens of
a prompt are the user's own and which the chat template's, token ids alone do not say. So a session is told, and looks
whether it is true: ids that do not stand in a row's prompt are an error.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from holitom.methods.base import Method
from holitom.models.placement import input_device

if TYPE_CHECKING:
    from holitom.runtime.call import Call
    from holitom.runtime.session import Session

Question: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Tensor
"""Ids of one question for all rows of a prompt, or of one for each row."""

_HOW = (
    "give the ids of the user's text as they stand in the prompt, method(model, question=ids); "
    "holitom.question_ids(tokenizer, inputs['input_ids'], text) finds them, and Pipeline.ask does so by itself"
)


def question_ids(tokenizer: Any, input_ids: Tensor | Sequence[Sequence[int]], text: str | Sequence[str]) -> Any:
    """The tokens of a prompt that are the user's text, for ``question=`` of a session.

    They are looked for in the prompt, by the text that they decode to, because a tokenizer may split a text in another
    way when something stands in front of it.

    Args:
        tokenizer: of the checkpoint.
        input_ids: (B, L) ids of the prompt's rows, or lists of ids.
        text: the question; a list has one for each row.

    Returns:
        B lists of ids.

    Raises:
        ValueError: when a row does not hold its text, naming the row.
    """
    rows = input_ids.tolist() if isinstance(input_ids, Tensor) else [list(row) for row in input_ids]
    texts = [text] * len(rows) if isinstance(text, str) else list(text)
    if len(texts) != len(rows):
        raise ValueError(f"the prompt has {len(rows)} rows, but there are {len(texts)} questions")
    return [_ids_of(tokenizer, row, number, texts[number].strip()) for number, row in enumerate(rows)]


def _ids_of(tokenizer: Any, row: list[int], number: int, text: str) -> list[int]:
    """The text's own ids where a row holds them, else the shortest run that decodes to it: two bisections."""
    own: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if own and contains(row, own):
        return own

    def holds(first: int, end: int) -> bool:
        return text in tokenizer.decode(row[first:end], clean_up_tokenization_spaces=False)

    if not own or not holds(0, len(row)):
        raise ValueError(
            f"row {number} of the prompt does not hold the question {text!r}: give the text as it was asked"
        )
    end = 1 + bisect_left(range(1, len(row)), True, key=lambda end: holds(0, end))
    length = 1 + bisect_left(range(1, end), True, key=lambda length: holds(end - length, end))
    return row[end - length : end]


def question_for(
    method: Method, tokenizer: Any, input_ids: Tensor | Sequence[Sequence[int]], text: str | Sequence[str]
) -> Any:
    """:func:`question_ids` where a method looks at the question; None where it does not."""
    return question_ids(tokenizer, input_ids, text) if "question" in method.needs else None


def refuse_question(method: Method, why: str) -> None:
    """Raises ValueError, with a reason, for a method that looks at the question."""
    if "question" in method.needs:
        raise ValueError(
            f"{method.name} looks at the question, {why}: use a method that needs none (see `holitom methods`), or "
            "give the model the video and its question in one prompt (Pipeline.ask without window and tokens)"
        )


def checked(question: Question | None) -> list[list[int]] | None:
    """Questions as lists of ids; a single one stands for all rows.

    Raises:
        TypeError: for other things than token ids.
        ValueError: for a question without ids.
    """
    if question is None:
        return None
    plain = [each.tolist() if isinstance(each, Tensor) else each for each in question]
    rows: list[Any] = [plain] if plain and all(isinstance(each, Integral) for each in plain) else plain
    if not all(isinstance(row, list | tuple) and all(isinstance(each, Integral) for each in row) for row in rows):
        raise TypeError(f"question= takes token ids, got {question!r:.200}: {_HOW}")
    if not rows or not all(rows):
        raise ValueError(f"each question needs at least one token, got {[len(row) for row in rows]}: {_HOW}")
    return [[int(each) for each in row] for row in rows]


def asked(call: Call, row: int) -> tuple[int, ...]:
    """The question of a row in which there is a video; nothing for a method that does not look at it.

    Raises:
        ValueError: when it is not known, or stands nowhere in the row.
    """
    name, questions = call.session.method.name, call.session.question
    if "question" not in call.session.method.needs:
        return ()
    if questions is None and call.reads_prefix:
        refuse_question(call.session.method, "but this video is read before one is asked")
    if questions is None:
        raise ValueError(f"{name} looks at the question, which this session was not given: {_HOW}")
    if call.rows % len(questions):
        raise ValueError(
            f"the prompt has {call.rows} rows, but the session was given {len(questions)} questions: {_HOW}"
        )
    found = questions[row // (call.rows // len(questions))]  # beams repeat each row
    assert call.ids is not None
    if not call.reads_prefix and not contains(call.ids[row].tolist(), found):
        raise ValueError(
            f"{name} looks at the question, but the {len(found)} ids that the session was given as such do not follow "
            f"each other in row {row} of the prompt: set session.question before each prompt; {_HOW}"
        )
    return tuple(found)


def embedded(session: Session, question: tuple[int, ...], device: torch.device) -> Tensor | None:
    """(L, D) what the language model makes of a question's ids before its first layer; None for no question."""
    if not question:
        return None
    ids = torch.tensor(question, dtype=torch.int64, device=input_device(session.model))
    rows: Tensor = session.model.get_input_embeddings()(ids)
    return rows.detach().to(device)


def contains(row: Sequence[int], part: Sequence[int]) -> bool:
    """Whether some ids follow each other in a row."""
    ids, wanted = (
        torch.tensor(row, dtype=torch.int64, device="cpu"),
        torch.tensor(part, dtype=torch.int64, device="cpu"),
    )
    return len(part) <= len(row) and bool((ids.unfold(0, len(part), 1) == wanted).all(1).any())


def goes_on(rest: Sequence[int], question: Sequence[int]) -> bool:
    """Whether the end of a prompt holds a question, of which a beginning may stand in front of it."""
    if contains(rest, question):
        return True
    return any(list(rest[: len(question) - first]) == list(question[first:]) for first in range(1, len(question)))
