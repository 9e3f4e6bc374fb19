"""Entry point of the container: `python -m thinktune.tasks.train --task task.json`."""

import os
import sys

from thinktune.schema.stages import TrainTask
from thinktune.tasks.runtime import ranks
from thinktune.tasks.runtime.entry import main

if __name__ == "__main__":
    group = ranks.Group.of(os.environ)
    if group is not None:
        command = [sys.executable, "-m", "thinktune.tasks.train", *sys.argv[1:]]
        sys.exit(ranks.run(group, command))
    main(TrainTask)
