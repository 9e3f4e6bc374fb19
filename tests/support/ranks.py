"""Trainings of a small model on several processes, as a pod starts them.

As a program, one rank of them: trains once per execution of a JSON file and writes down what came
of it.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from command import free_port
from safetensors.torch import load_file, save_file

SUPPORT = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """Of one training."""

    losses: list[float]
    adapter: dict[str, torch.Tensor]


def train(
    ranks: int, model: Path, folder: Path, executions: list[dict[str, Any]], **settings: Any
) -> list[Outcome]:
    """One training per execution on `ranks` processes of a CPU, or of a GPU each where there are.

    Stores and results lie in `folder`, by number; what a store has there already is resumed.
    """
    folder.mkdir(exist_ok=True)
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"executions": executions, "settings": settings}))
    port = free_port()
    environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    environ["PYTHONPATH"] = f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}"
    processes = []
    with tempfile.TemporaryDirectory() as temporary:
        for rank in range(ranks):
            own = {**environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            log = (Path(temporary) / f"{rank}").open("w+")
            command = [sys.executable, __file__, str(model), str(folder)]
            process = subprocess.Popen(
                command, env=own, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
            processes.append((process, log))
        try:
            for process, log in processes:
                process.wait(timeout=240)
                log.seek(0)
                assert process.returncode == 0, log.read()[-4000:]
        finally:
            for process, _ in processes:
                process.kill()
    return [
        Outcome(
            json.loads((folder / f"{number}.json").read_text()),
            load_file(folder / f"{number}.safetensors"),
        )
        for number in range(len(executions))
    ]


def _rank(model: Path, folder: Path) -> None:
    import torch.distributed as dist
    from trainer import maker

    from thinktune.tasks.model.adapter import trainable

    plan = json.loads((folder / "plan.json").read_text())
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    for number, execution in enumerate(plan["executions"]):
        own = folder / f"{number}-{os.environ['RANK']}"
        own.mkdir(exist_ok=True)
        make = maker(model, own, device, store=folder / f"store-{number}")
        settings = {**plan["settings"]}
        trainer = make(execution, fused=settings.pop("fused", False), **settings)
        trainer.lifecycle.run()
        adapter = {name: p.detach().cpu() for name, p in trainable(trainer.model).items()}
        if dist.is_initialized() and dist.get_world_size() > 1:
            _same_everywhere(adapter)
        if os.environ["RANK"] == "0":
            rows = [json.loads(line) for line in (own / "metrics.jsonl").read_text().splitlines()]
            losses = [row["loss"] for row in rows if "loss" in row]
            (folder / f"{number}.json").write_text(json.dumps(losses))
            save_file(
                {n: t.contiguous() for n, t in adapter.items()}, folder / f"{number}.safetensors"
            )


def _same_everywhere(adapter: dict[str, torch.Tensor]) -> None:
    import torch.distributed as dist

    flat = torch.cat([tensor.reshape(-1) for tensor in adapter.values()])
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, flat)
    assert all(torch.equal(flat, other) for other in found)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]), Path(sys.argv[2]))
