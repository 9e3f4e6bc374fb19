"""CSV as people, Excel and scripts write it, whole and broken."""

from pathlib import Path

import pytest
from read_files import ROWS, broken, fault, rows

from thinktune.tasks.prep.readers.reading import read_records


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n"q, with a comma\nand a line",a\né,b\n', encoding="utf-8")
    assert rows(path) == ROWS


def test_a_csv_row_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq,a\nq,a,more\nq\nq,a\n")
    assert broken(path) == [
        "a.csv:3: a row with more than 2 fields",
        "a.csv:4: a row with fewer than 2 fields",
    ]
    assert sum(record.row is not None for record in read_records(path)) == 2


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\nq,\xff\nq,a\n")
    assert broken(path) == ["a.csv:2: not UTF-8 text"]
    path.write_bytes(b"question,\xff\nq,a\n")
    assert "a.csv:1: not UTF-8 text; save the file as UTF-8" in fault(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_of_csv(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    header = delimiter.join(["question", '"answer, or; so|"', "n"])
    path.write_text(f"{header}\n" + delimiter.join(["q", "a", "1"]) + "\n")
    assert rows(path) == [{"question": "q", "answer, or; so|": "a", "n": "1"}]
    path.write_text("question\nq\n")
    assert rows(path) == [{"question": "q"}]


def test_a_byte_order_mark_before_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question;answer\nq;a\n", encoding="utf-8-sig")
    assert rows(path) == [{"question": "q", "answer": "a"}]


def test_csv_as_excel_and_scripts_write_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    expected = [{"question": "q", "answer": "a"}, {"question": "p", "answer": "b"}]
    for text in (
        "sep=;\nquestion;answer\nq;a\np;b\n",
        "question, answer\nq, a\np, b\n",
        "question,answer\nq,a\n\np,b\n,\n,,\n",
        "question,answer,\nq,a,\np,b,\n".replace(",\n", "\n"),
        'question,answer\r\n"q",a\r\np,"b"\r\n',
        "question\tanswer\nq\ta\np\tb\n",
    ):
        path.write_text(text, newline="")
        assert rows(path) == expected, text
    tsv = tmp_path / "a.tsv"
    tsv.write_text("question\tanswer\nq\ta\np\tb\n")
    assert rows(tsv) == expected


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer,answer\nq,a,b\n")
    assert "a.csv:1: column 'answer' stands twice in the header" in fault(path)


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer\nq,a\n"p,b\nr,c\ns,d\n')
    assert broken(path) == [f"a.csv:{n}: a quote that is never closed" for n in (3, 4, 5)]
    path.write_text('question,answer\nq,"a"b\np,b\n')
    assert broken(path) == ["a.csv:2: a row with a stray quote"]


def test_rows_that_a_stray_quote_swallows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"q{n},a{n}" for n in range(100)]
    lines[4], lines[50] = '"q4,a4', 'q50,"a50"'
    path.write_text("question,answer\n" + "\n".join(lines) + "\n")
    found = list(read_records(path))
    assert len(found) == 100
    lines[50] = 'q50",a50'  # which happens to close the quote of row 4
    path.write_text("question,answer\n" + "\n".join(lines) + "\n")
    found = list(read_records(path))
    assert (len(found), sum(record.row is None for record in found)) == (100, 47)
    text = "one, two\nthree, four\nfive\nsix, seven"  # a field of several lines stays
    path.write_text(f'question,answer\nq,"{text}"\n')
    assert rows(path) == [{"question": "q", "answer": text}]


def test_json_under_the_name_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('{"question": "q"}\n')
    assert "the name says CSV, the content is JSON; rename it to a.jsonl" in fault(path)
