"""The command line: thin Click commands over plan and launch; loads no torch."""
