"""The templates of this package, as `page` and `comparison` fill them: model text stays text."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from thinktune.tasks.evaluate.report.wording import (
    figure,
    p_value,
    percent,
    plain,
    plain_or_none,
    signed,
)


def environment() -> Environment:
    """Escapes everything that is no Markup, and knows how figures are written."""
    made = Environment(
        loader=PackageLoader("thinktune.tasks.evaluate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=percent,
        p_value=p_value,
        plain=plain,
        signed=signed,
        figure=figure,
        compared=plain_or_none,
    )
    return made
