"""Four hundred files of random shape: every row is learned or counted, and nothing is made up."""

import csv
import gzip
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import Row, read

from thinktune.schema.errors import ThinktuneError

FILES = 400
ODD: tuple[Any, ...] = (
    *(None, True, False, math.nan, math.inf, 7, -3.5, 1e300, [], ["a"], {}, {"a": 1}, [["q", "a"]]),
    *("", " ", "\u200b", "nan", "None", "on", "a\0b", "\ud83d", "<think>r", "<Think>r</Think>a"),
    *(
        "<think>r</think>a",
        "r</think>a",
        "<reasoning>r</reasoning>a",
        "a<|im_end|>",
        "[{'role': 1}]",
    ),
    *('[{"role": "user", "content": "q"}]', "line\nline", 'quo"te', "comma, semi;colon\ttab|bar"),
)
QUESTIONS = ("question", "Question", "prompt", "instruction", "query")
ANSWERS = ("answer", "response", "completion", "output")
MORE = ("reasoning", "summary", "options", "system", "id", "history", "input", "meta", "weight")
REPRS = ("nan", "None", "True", "False", "[", "{", "inf")
"""How Python prints what is no text."""


def cell(chance: random.Random, number: int, oddness: float) -> Any:
    return (
        chance.choice(ODD) if chance.random() < oddness else f"text {number} {chance.random():.6f}"
    )


def turns_of(chance: random.Random, number: int, oddness: float) -> Any:
    if chance.random() < oddness:
        return chance.choice(ODD)
    names = chance.choice([("role", "content"), ("from", "value")])
    turns = []
    for turn in range(chance.choice([2, 2, 2, 4, 3, 1])):
        role = (
            chance.choice(["user", "human"])
            if turn % 2 == 0
            else chance.choice(["assistant", "gpt"])
        )
        role = (
            chance.choice(["tool", "wizard", "system"]) if chance.random() < oddness / 3 else role
        )
        said = {names[0]: role, names[1]: cell(chance, number, oddness)}
        if chance.random() < oddness:
            said[chance.choice(["weight", "tool_calls", "images", "name", "reasoning"])] = cell(
                chance, number, 0.5
            )
        turns.append(said)
    return turns


def rows_of(chance: random.Random) -> list[Row]:
    oddness = chance.choice([0, 0.05, 0.3, 0.8])
    conversations = chance.random() < 0.4
    asked, answered = chance.choice(QUESTIONS), chance.choice(ANSWERS)
    more = chance.sample(MORE, chance.randrange(4))
    made = []
    for number in range(chance.randrange(1, 30)):
        if conversations:
            row = {"messages": turns_of(chance, number, oddness)}
        else:
            row = {asked: cell(chance, number, oddness), answered: cell(chance, number, oddness)}
        row |= {name: cell(chance, number, oddness) for name in more}
        if chance.random() < oddness / 4:
            row.pop(chance.choice(sorted(row)))
        made.append(row)
    return made


def as_lines(rows: list[Row], chance: random.Random) -> bytes:
    end = chance.choice(["\n", "\r\n", "\r", ",\n", ""])
    text = end.join(json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in rows)
    return text.encode("utf-8", "surrogatepass")


def test_a_broken_object_among_others_in_one_line(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": f"{n}"} for n in range(4)]
    spelled = [json.dumps(row).encode() for row in rows]
    spelled[1] = spelled[1].replace(b"1", b"\xff")
    spelled[2] = spelled[2].replace(b":", b"")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(spelled))
    found = read(path)
    assert [example.answer for example in found.examples] == ["0", "3"]
    assert found.dropped == {"not UTF-8 text": 1, "not JSON": 1}


def as_list(rows: list[Row], chance: random.Random) -> bytes:
    return json.dumps(rows, indent=chance.choice([None, 1, 4])).encode()


def as_csv(rows: list[Row], chance: random.Random) -> bytes:
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out, delimiter=chance.choice(",;\t"))
    writer.writerow(names)
    writer.writerows([[row.get(name) for name in names] for row in rows])
    return out.getvalue().encode(chance.choice(["utf-8", "utf-8-sig", "utf-16"]), "replace")


def as_parquet(rows: list[Row], chance: random.Random) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array([None if value == {} else value for value in values])
        except (pa.ArrowException, UnicodeEncodeError):  # of several types
            texts = [v if isinstance(v, str) and v != "\ud83d" else None for v in values]
            columns[name] = pa.array(texts, pa.string())
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=chance.choice([3, 1000]))
    return out.getvalue()


KINDS: dict[str, Callable[[list[Row], random.Random], bytes]] = {
    ".jsonl": as_lines,
    ".json": as_list,
    ".csv": as_csv,
    ".parquet": as_parquet,
}


def spoiled(data: bytes, chance: random.Random) -> bytes:
    """Sometimes cut off, with a byte changed, or packed."""
    fate = chance.random()
    if fate < 0.1:
        return data[: chance.randrange(1, len(data) + 1)]
    if fate < 0.2:
        place = chance.randrange(len(data))
        return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    return gzip.compress(data) if fate < 0.3 else data


@pytest.mark.parametrize("part", range(8))
def test_random_files(tmp_path: Path, part: int) -> None:
    learned = refused = 0
    for seed in range(part * FILES // 8, (part + 1) * FILES // 8):
        chance = random.Random(seed)
        rows = rows_of(chance)
        suffix = chance.choice(sorted(KINDS))
        whole = KINDS[suffix](rows, chance)
        data = whole if suffix == ".parquet" else spoiled(whole, chance)
        path = tmp_path / f"{seed}{suffix}"
        path.write_bytes(data)
        try:
            found = read(path)
        except ThinktuneError as error:
            refused += 1
            assert error.exit_code in (64, 65), seed
            assert error.remedy, seed
            continue
        learned += len(found.examples)
        if data is whole or data[:2] == b"\x1f\x8b":
            assert len(found.examples) + found.dropped.total() == _count(rows, suffix), seed
        said = json.dumps(rows, ensure_ascii=False, default=str)
        for example in found.examples:
            for text in (example.question, example.answer, example.reasoning, example.system):
                printed = text is not None and text.startswith(REPRS) and text not in ODD
                assert not printed or text in said or suffix == ".csv", (seed, text)
            assert "\0" not in example.question + example.answer, seed
        assert read(path) == found, seed
    assert learned > 100
    assert refused < 40


def _count(rows: list[Row], suffix: str) -> int:
    """Rows of a file: in CSV one whose fields are all blank is none."""
    if suffix != ".csv":
        return len(rows)
    return sum(any(str("" if v is None else v).strip() for v in row.values()) for row in rows)
