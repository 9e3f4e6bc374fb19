"""Entry point of the container: `python -m thinktune.tasks.train --task task.json`."""

from thinktune.spec.task import TrainTask
from thinktune.tasks.entry import main

if __name__ == "__main__":
    main(TrainTask)
