"""A file to an artifact under a recipe: what is learned, what is dropped and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from prep_stage import Made, Prep
from reading import Row, written
from s3_server import BUCKET, S3Server

from thinktune.schema.errors import DataInvalid, Preempted, SpecInvalid
from thinktune.store import file_sha256, open_store
from thinktune.tasks.prep import batches
from thinktune.tasks.prep.ledger import Ledger
from thinktune.tasks.runtime.stopping import Stop
from thinktune.text.conversation import Reason


@pytest.fixture(scope="module")
def prep(tmp_path_factory: pytest.TempPathFactory) -> Prep:
    return Prep(tmp_path_factory.mktemp("prep"))


def rows_of(count: int) -> list[Row]:
    return [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(count)]


def thinking(count: int) -> list[Row]:
    return [{**row, "answer": f"<think>so</think>{row['answer']}"} for row in rows_of(count)]


def dropped(made: Made) -> dict[str, int]:
    found: dict[str, int] = made.card["dropped"]
    return found


def test_a_row_without_its_columns_is_dropped(prep: Prep, tmp_path: Path) -> None:
    rows = [{"question": "only"}, *rows_of(150), {"answer": "only"}]
    made = prep.run(written(tmp_path, rows))
    assert len(made.rows("train")) == 150
    assert dropped(made) == {"no column 'answer'": 1, "no column 'question'": 1}
    drops = {d["reason"]: d["examples"] for d in made.card["drops"]}
    assert drops["no column 'answer'"] == ["own.jsonl:1"]


def test_ids_are_distinct(prep: Prep, tmp_path: Path) -> None:
    given = ["a", "a", "b", "a#2", "a", "b"]
    rows = [{**row, "id": name} for row, name in zip(rows_of(6), given, strict=True)]
    made = prep.run(written(tmp_path, rows))
    assert [r["id"] for r in made.rows("train")] == ["a", "a#3", "b", "a#2", "a#4", "b#2"]
    same = prep.run(written(tmp_path, rows_of(2) * 2), deduplicate=False)
    ids = [row["id"] for row in same.rows("train")]
    assert ids[2:] == [f"{name}#2" for name in ids[:2]]


def test_the_usable_one_of_several_copies_is_kept(prep: Prep, tmp_path: Path) -> None:
    unusable = {"question": "0 + 0?", "answer": "<think>never ends"}
    made = prep.run(written(tmp_path, [unusable, *rows_of(20), *rows_of(1)]))
    assert len(made.rows("train")) == 20
    assert dropped(made) == {"duplicate question": 1, "unfinished think part": 1}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"filters": [{"column": "anser", "not_empty": True}]}, "did you mean 'answer'"),
        ({"balance": {"column": "level", "values": ["x"]}}, "no column 'level' to balance by"),
        ({"columns": {"id": "quesion"}}, "did you mean 'question'"),
    ],
)
def test_a_column_that_no_row_has(
    prep: Prep, tmp_path: Path, data: dict[str, object], said: str
) -> None:
    with pytest.raises(DataInvalid, match=said):
        prep.run(written(tmp_path, rows_of(3)), **data)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "answer": "<think>r</think>a", "reasoning": "s"}, "in one place"),
        ({"question": "q", "answer": "<think>r"}, "one <think>…</think>, closed"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "conversations that use tools"),
        ({"messages": [{"role": "user", "content": "x"}]}, "turns are by user and assistant"),
        ({"messages": "x"}, "map data.columns.conversation to a list"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "turns are by user and assistant"),
        ({"messages": '[{"role": "user", "content": "\\ud83d"}]'}, "whole characters only"),
        ({"question": "q", "answer": "a <think>r</think>"}, "one <think>…</think>, closed"),
        ({"question": "q", "answer": "a", "reasoning": "<think>r</think>x"}, "map the right one"),
        ({"question": "", "answer": "a"}, "check data.format and data.columns"),
        ({"question": "q", "answer": ["a"]}, "write it as text, or map another column"),
    ],
)
def test_the_remedy_fits_the_reason(prep: Prep, tmp_path: Path, row: Row, said: str) -> None:
    with pytest.raises(DataInvalid, match="1 of 1 rows cannot be used") as caught:
        prep.run(written(tmp_path, [row]))
    assert said in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "fault", "said"),
    [
        ({"require_reasoning": True}, "3 of 3 rows cannot", "set data.require_reasoning=false"),
        (
            {"filters": [{"column": "answer", "matches": "no"}]},
            "none of 3 rows is left",
            "loosen data.filters",
        ),
        ({"max_tokens": 16}, "none of 3 rows is left", "raise data.max_tokens"),
    ],
)
def test_the_remedy_fits_what_the_recipe_asks_for(
    prep: Prep, tmp_path: Path, data: dict[str, object], fault: str, said: str
) -> None:
    with pytest.raises(DataInvalid, match=fault) as caught:
        prep.run(written(tmp_path, rows_of(3)), **data)
    assert said in caught.value.remedy


def test_too_many_rows_that_cannot_be_used(prep: Prep, tmp_path: Path) -> None:
    path = written(tmp_path, rows_of(17))
    path.write_text(path.read_text() + '{"question": "q"}\n{"question": \n[1]\n')
    with pytest.raises(DataInvalid, match="3 of 20 rows cannot be used") as caught:
        prep.run(path)
    said = str(caught.value)
    for place, reason in (("own.jsonl:18", "no column 'answer'"), ("own.jsonl:19", "not JSON")):
        assert place in said
        assert reason in said
    assert said.endswith("or raise data.max_bad_fraction to go on without them")
    made = prep.run(path, max_bad_fraction=0.15)
    assert sum(dropped(made).values()) == 3
    assert {d["bad"] for d in made.card["drops"]} == {True}


def test_a_file_of_blank_lines(prep: Prep, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("\n\n  \n")
    with pytest.raises(DataInvalid, match="the file is empty"):
        prep.run(path)
    path = tmp_path / "own.csv"
    path.write_text("question,answer\n\n")
    with pytest.raises(DataInvalid, match="the dataset has no rows"):
        prep.run(path)


def test_rewordings_are_on_one_side(prep: Prep, tmp_path: Path) -> None:
    rows = []
    for n in range(60):
        text = f"A shop sells {n * 37 + 100} hats in May and {n * 53 + 211} in June. How many?"
        rows += [
            {"question": text, "answer": str(n)},
            {"question": f"Question: {text}", "answer": "x"},
        ]
    made = prep.run(written(tmp_path, rows), split={"test_rows": 15, "validation_rows": 5})
    held = [row["question"] for row in made.rows("test")]
    assert len(held) == 15
    assert len(made.rows("train")) == 80
    assert made.card["near_duplicates"]["rows"] == 120
    assert dropped(made)["shares a held-out question"] == 20


def test_prefixes_of_one_conversation_are_on_one_side(prep: Prep, tmp_path: Path) -> None:
    rows = []
    for n in range(40):
        turns = []
        for turn in range(3):
            turns += [
                {"role": "user", "content": f"Conversation {n * 71}: part {turn} about {n * 31}?"},
                {"role": "assistant", "content": f"answer {n}"},
            ]
            rows.append({"messages": list(turns)})
    made = prep.run(written(tmp_path, rows), split={"test_rows": 10})
    learned = made.rows("train")
    assert len(made.rows("test")) == 10
    assert len(learned) == 90


def test_every_answer_of_a_conversation(prep: Prep, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "<think>r</think>1"},
        {"role": "user", "content": "two?"},
        {"role": "assistant", "content": "2"},
    ]
    path = written(tmp_path, [{"messages": turns, "id": "x"}])
    last = prep.run(path)
    assert [row["id"] for row in last.rows("train")] == ["x"]
    assert last.card["notes"] == {"earlier answer not learned": 1}
    every = prep.run(path, learn_turns="every")
    assert [row["id"] for row in every.rows("train")] == ["x", "x.2"]
    reasoned = prep.run(path, learn_turns="every", require_reasoning=True)
    assert [row["id"] for row in reasoned.rows("train")] == ["x"]
    assert reasoned.card["notes"] == {"answer left out (no complete think part)": 1}


def test_what_stays_is_cleaned_and_counted(prep: Prep, tmp_path: Path) -> None:
    rows = thinking(20)
    rows[1]["question"] += " Write to jane.doe@example.com"
    rows[4]["answer"] += "<|im_end|>"
    made = prep.run(written(tmp_path, rows), scrub=["emails"])
    assert made.card["notes"] == {"end token taken off": 1, "e-mail address scrubbed": 1}
    text = (made.folder / "card.json").read_text()
    assert "jane.doe" not in text
    assert "[e-mail address]" in text


def test_loops_languages_and_lengths(prep: Prep, tmp_path: Path) -> None:
    rows = thinking(20)
    looping = "wait, that is not right, so let me think about all of this again from the start " * 9
    rows[0]["answer"] = f"<think>{looping}</think>0"
    rows[1]["question"] = "Wie viele Äpfel liegen heute auf dem Tisch in der Küche, und warum?"
    rows[2]["answer"] = f"<think>{'a thought about one and two. ' * 4}</think>4"
    made = prep.run(
        written(tmp_path, rows),
        drop_loops=True,
        languages=["en"],
        max_reasoning_tokens=40,
        min_tokens=5,
        max_tokens=2000,
    )
    assert dropped(made) == {
        "goes round in circles": 1,
        "in language 'de'": 1,
        "reasoning not of the length that is wanted": 1,
    }
    assert {d["bad"] for d in made.card["drops"]} == {False}


def test_a_language_that_cannot_be_told(prep: Prep, tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="'la' is no language that can be told"):
        prep.run(written(tmp_path, rows_of(3)), languages=["la"])


def test_text_that_was_rendered_already_is_said(prep: Prep, tmp_path: Path) -> None:
    rows = [*rows_of(5), {"question": "<|im_start|>user\nq<|im_end|>", "answer": "a"}]
    made = prep.run(written(tmp_path, rows))
    assert made.card["notes"] == {"spells marks of a chat template, which stay text": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{\n{\n", "2 of 2 rows cannot be used"),
        ("\n", "the file is empty"),
    ],
)
def test_a_test_set_that_cannot_be_read_clears_nothing(
    prep: Prep, tmp_path: Path, content: str, said: str
) -> None:
    tests = tmp_path / "tests.jsonl"
    tests.write_text(content)
    with pytest.raises(DataInvalid, match=said):
        prep.run(written(tmp_path, rows_of(9)), test_sets=[str(tests)])
    for name, fault in (("nosuch", "neither a file nor"), ("held-out", "test_rows is 0")):
        with pytest.raises(SpecInvalid, match=fault):
            prep.run(written(tmp_path, rows_of(9)), test_sets=[name])


def test_test_sets_of_conversations_and_of_questions_without_answers(
    prep: Prep, tmp_path: Path
) -> None:
    asked = "A man of forty has had a fever for three days. What is the most likely diagnosis?"
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "Malaria."}]
    turns += [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    path = written(tmp_path, [{"messages": turns}], "turns.jsonl")
    found = prep.run(path, test_sets=[str(path)]).card["contamination"]
    assert found["counts"] == {str(path): {"same question": 1}}
    choice = {"question": asked, "options": ["Flu", "Malaria"]}
    tests = written(tmp_path, [{**choice, "answer": ""}], "choices.jsonl")
    learned = written(tmp_path, [{**choice, "answer": "B"}, *rows_of(3)])
    found = prep.run(learned, test_sets=[str(tests)]).card["contamination"]
    assert found["counts"] == {str(tests): {"same question": 1}}


def test_a_balance_table(prep: Prep, tmp_path: Path) -> None:
    rows = [{**row, "level": ["easy", "hard", "odd"][n % 3]} for n, row in enumerate(rows_of(30))]
    balance = {"column": "level", "values": ["easy", "hard"], "rows_per_value": 4}
    made = prep.run(written(tmp_path, rows), balance=balance)
    assert made.card["balance"] == [
        {"value": value, "wanted": 4, "available": 10, "taken": 4} for value in ("easy", "hard")
    ]
    assert dropped(made) == {"balance": 12, "level not among the balanced values": 10}


def test_training_rows_that_a_test_set_knows(prep: Prep, tmp_path: Path) -> None:
    asked = "A patient of forty years with fever and a stiff neck comes in. What is the next step?"
    tests = written(tmp_path, [{"question": asked, "answer": "x"}], "tests.jsonl")
    rows = [*rows_of(20), {"question": f"Question: {asked}", "answer": "a puncture"}]
    made = prep.run(written(tmp_path, rows), test_sets=[str(tests)])
    found = made.card["contamination"]
    assert found["counts"] == {str(tests): {"same question": 1}}
    assert "stiff neck" in found["worst"][0]["text"]
    assert "stiff neck" in (made.folder / "card.html").read_text()


def test_batches_decide_nothing(
    prep: Prep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, [*thinking(60), {"question": "q"}])
    data: dict[str, Any] = {"split": {"test_rows": 9, "validation_rows": 3}, "sample_rows": 30}
    whole = prep.run(path, **data)
    monkeypatch.setattr(batches, "ROWS", 7)
    pieces = prep.run(path, **data)
    assert [f.sha256 for f in whole.manifest.files] == [f.sha256 for f in pieces.manifest.files]


def test_a_request_to_stop_is_answered(prep: Prep, tmp_path: Path) -> None:
    stop = Stop()
    stop.requested = True
    with pytest.raises(Preempted):
        prep.run(written(tmp_path, rows_of(3)), stop=stop)


def test_several_files(prep: Prep, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    rows = rows_of(9)
    written(folder, rows[:3], "a.jsonl")
    written(folder / "more", rows[3:6], "b.jsonl")
    (folder / "c.json").write_text(json.dumps(rows[6:]))
    (folder / "README.md").write_text("about")
    (folder / ".hidden.jsonl").write_text("{")
    whole = prep.run(folder)
    sorted_by_name = prep.run(written(tmp_path, [*rows[:3], *rows[6:], *rows[3:6]]))
    assert whole.rows("train") == sorted_by_name.rows("train")
    assert len(prep.run(folder / "*.jsonl").rows("train")) == 3
    assert len(prep.run(f"{folder}/**/*.jsonl").rows("train")) == 6
    with pytest.raises(DataInvalid, match="no file is there"):
        prep.run(folder / "*.csv")
    with pytest.raises(DataInvalid, match="none of 2 files is of a known kind"):
        (folder / "x.md").touch()
        prep.run(folder / "*.md")


def test_settings_that_contradict_each_other_end_prep(prep: Prep, tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="leave one of them out"):
        prep.run(written(tmp_path, rows_of(3)), format="messages", columns={"answer": "answer"})


def test_the_page_shows_rows_as_text(prep: Prep, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m ````\n# title `x` <img src=x onerror=y>"
    rows = [{"question": f"{hostile} {n}?", "answer": f"{hostile}"} for n in range(4)]
    made = prep.run(written(tmp_path, rows))
    page = (made.folder / "card.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_remedy_is_that_of_the_most_frequent_reason() -> None:
    ledger = Ledger(rows=3)
    ledger.drop(Reason("rare", "do this"), "f:1", bad=True)
    ledger.drop(Reason("frequent", "do that"), "f:2", bad=True, count=2)
    ledger.drop(Reason("absent", "do nothing"), bad=True, count=0)
    assert ledger.counts() == {"frequent": 2, "rare": 1}
    with pytest.raises(DataInvalid, match="frequent: 2, first f:2, rare: 1") as caught:
        ledger.check(0.5, "f")
    assert caught.value.remedy == "do that"


def test_files_of_a_bucket(
    prep: Prep, tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = open_store(f"s3://{BUCKET}")
    rows = rows_of(6)
    for key, some in (("own/a.jsonl", rows[:3]), ("own/more/b.jsonl", rows[3:])):
        file = written(tmp_path, some, Path(key).name)
        bucket.upload(key, file, file_sha256(file))
    bucket.put("own/README.md", b"about")
    everything = prep.run(f"s3://{BUCKET}/own/").rows("train")
    assert everything == prep.run(written(tmp_path, rows)).rows("train")
    assert prep.run(f"s3://{BUCKET}/own/a.jsonl").rows("train") == everything[:3]
    assert prep.run(f"s3://{BUCKET}/own/more/*.jsonl").rows("train") == everything[3:]
    with pytest.raises(DataInvalid, match="no file of a known kind"):
        prep.run(f"s3://{BUCKET}/nothing/")
