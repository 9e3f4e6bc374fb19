"""The recipes of the guide are ones that are accepted."""

import re
from pathlib import Path

from thinktune.schema.closed import parse_yaml
from thinktune.schema.llm import GenerateSpec

GUIDE = Path(__file__).parents[3] / "docs/guide/llm-fields.md"


def test_the_recipes_of_the_guide() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    specs = [
        GenerateSpec.parse(parse_yaml(block, "guide")["data"]["generate"], "guide")
        for block in blocks
    ]
    assert [spec.column for spec in specs] == ["summary", "draft"]
    assert specs[1].llm.key_variable is None
    assert specs[1].llm.budget.tokens == 400_000_000
