"""The report: `build` makes it from judged samples, `page` and `wording` show it to people."""
