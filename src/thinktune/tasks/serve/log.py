"""Lines for people, with their time. No key, no header and no text of a client stands in one."""

import sys
import time


def say(text: str) -> None:
    """Prints a line."""
    clock = time.strftime("%H:%M:%S")
    sys.stdout.write(f"{clock} {text}\n")
    sys.stdout.flush()
