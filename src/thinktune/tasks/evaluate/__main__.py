"""Entry point of the container: `python -m thinktune.tasks.evaluate --task task.json`."""

from thinktune.spec.task import EvaluateTask
from thinktune.tasks.entry import main

if __name__ == "__main__":
    main(EvaluateTask)
