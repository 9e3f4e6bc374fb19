"""`python -m thinktune.tasks.serve --task FILE`: serves a run until SIGTERM.

No stage of a run: it commits nothing and is never done.
"""

import argparse
import sys
from pathlib import Path

from thinktune.schema.serve import ServeTask
from thinktune.tasks.runtime.entry import guarded, read_json
from thinktune.tasks.serve.nodes import node_rank, run_worker
from thinktune.tasks.serve.server import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m thinktune.tasks.serve")
    parser.add_argument("--task", type=Path, required=True, help="the task file, JSON")
    path: Path = parser.parse_args().task
    # Of several nodes that serve one model, the first has the gateway.
    work = run if node_rank() == 0 else run_worker
    sys.exit(guarded(lambda: work(ServeTask.parse(read_json(path), str(path)))))
