"""The final-answer line: the line that starts with the recipe's marker and holds the answer."""

import re

ANSWER_RULE = (
    "The answer is what stands on the last line that starts with the marker; where there is no "
    "such line, the text after the think part is read instead (its last boxed expression or last "
    "number, its last named option, its last sentence, as the check needs), so that a model is "
    "not judged wrong for lacking the line alone. A think part that never ends is no answer and "
    "counts as wrong."
)


def final_answer(answer_text: str, marker: str) -> str | None:
    """What follows the marker on the last line that starts with it, or None.

    Case counts. Markdown before the marker is allowed (`**Final Answer:** 4`); a line that ends
    with its marker holds no answer and does not count.
    """
    words = marker.strip().rstrip(":. ")
    punctuation = marker.strip()[len(words) :]
    line = rf"^[ \t>#*_-]*{re.escape(words)}[*_]*{re.escape(punctuation)}[ \t*_]*(\S.*)$"
    found: list[str] = re.findall(line, answer_text, re.MULTILINE)
    return found[-1].rstrip().rstrip("*_").rstrip() or None if found else None
