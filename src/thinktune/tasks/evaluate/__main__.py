"""Entry point of the container: `python -m thinktune.tasks.evaluate --task task.json`."""

from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.runtime.entry import main

if __name__ == "__main__":
    main(EvaluateTask)
