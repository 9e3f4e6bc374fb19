"""One server over several nodes: the first has the gateway, the others compute for it.

vLLM's `mp` executor divides the model, without Ray: every node starts `vllm serve` with its rank
and the first one's address, all but the first without a front end. A node that ends takes the
others along (`tasks.runtime.nodes`): what is left of a group cannot go on, and Kubernetes starts
all of them again.
Called by `__main__` and by `server`.
"""

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL

from aiohttp import web

from thinktune.schema.errors import InternalError, ServiceUnavailable
from thinktune.schema.serve import ServeTask
from thinktune.store import open_store
from thinktune.tasks.runtime.nodes import PeerWatch
from thinktune.tasks.serve.adapters import Adapters
from thinktune.tasks.serve.engine.choose import Command, choose, command, look
from thinktune.tasks.serve.engine.process import engine_environment
from thinktune.tasks.serve.fetching import brought, pod_folder
from thinktune.tasks.serve.log import say

NODES, RANK = "THINKTUNE_NODES", "THINKTUNE_NODE_RANK"
LEADER = ("MASTER_ADDR", "LWS_LEADER_ADDRESS")
"""Names of the first node, from the chart or from LeaderWorkerSet."""
RESOLVE_S = 600.0
"""Seconds until the first node has a name: its pod waits for a node, and for its image."""
RETRY_S = 1.0
LOOK_S = 0.5
STOP_S = 20.0


def node_count() -> int:
    """Number of nodes of this server."""
    return int(os.environ.get(NODES, "1"))


def node_rank() -> int:
    """Number of this node, from 0."""
    return int(os.environ.get(RANK, "0"))


def watch_peers() -> PeerWatch:
    """Tells when another node has ended."""
    address = {"MASTER_ADDR": leader_name(), "MASTER_PORT": os.environ.get("MASTER_PORT", "29500")}
    return PeerWatch(node_count(), node_rank(), address)


def leader_name() -> str:
    """Name of the first node. Raises InternalError where the chart gives none."""
    for variable in LEADER:
        if os.environ.get(variable):
            return os.environ[variable]
    fault = "the first node's name is not in the environment"
    raise InternalError(" or ".join(LEADER), fault, "install the chart's own workload")


def node_arguments(leader: str) -> tuple[str, ...]:
    """What vLLM is told of its place among the nodes; `leader` is an address."""
    arguments = (
        f"--node-rank={node_rank()}",
        f"--master-addr={leader}",
        f"--master-port={os.environ.get('MASTER_PORT', '29500')}",
        "--distributed-executor-backend=mp",
    )
    return arguments if node_rank() == 0 else (*arguments, "--headless")


def as_first_node(alone: Command) -> Command:
    """The engine's command on the node that has the gateway."""
    leader = resolve(leader_name())
    arguments = (*alone.arguments, *node_arguments(leader))
    return Command(arguments, {**alone.environment, "VLLM_HOST_IP": leader})


def resolve(name: str, limit_s: float = RESOLVE_S) -> str:
    """The address of a name that may not be known yet: vLLM takes no name. Raises
    ServiceUnavailable."""
    until = time.monotonic() + limit_s
    while True:
        try:
            return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
        except socket.gaierror as error:
            if time.monotonic() > until:
                fault = f"the first node has no address ({error.strerror})"
                remedy = "is its pod there? It needs a node, and DNS"
                raise ServiceUnavailable(name, fault, remedy) from None
        time.sleep(RETRY_S)


def own_address(leader: str) -> str:
    """The address of this node on the way to the first one."""
    family = socket.AF_INET6 if ":" in leader else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((leader, 9))  # sends nothing
        return str(probe.getsockname()[0])


def run_worker(task: ServeTask) -> None:
    """Computes for the first node until that has ended, or another node has. Raises
    ThinktuneError."""
    asyncio.run(_run_worker(task))


async def _run_worker(task: ServeTask) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    chosen = choose("vllm", await look())
    adapters = Adapters(task, open_store(task.store), pod_folder())
    await brought(adapters.begin, stopped)
    adapters.check("vllm")
    leader = await asyncio.to_thread(resolve, leader_name())
    started = command(chosen, adapters.first, task, task.port + 1, adapters.loaded)
    arguments = (*started.arguments, *node_arguments(leader))
    environment = {**started.environment, "VLLM_HOST_IP": own_address(leader)}
    peers = watch_peers()
    process = await _start(Command(arguments, environment))
    say(f"node {node_rank()} of {node_count()} computes for {leader}")
    answering = await _answer(task)
    try:
        if await computed(process, peers, stopped, task.times.grace_s):
            return
        how = f"ended with code {process.returncode}" if not peers.lost else "has lost a node"
        raise InternalError("engine", f"it {how}", "all nodes start again")
    finally:
        peers.leave(done=stopped.is_set() or peers.left)
        await _end(process)
        await answering.cleanup()


async def computed(
    process: asyncio.subprocess.Process,
    peers: PeerWatch,
    stopped: asyncio.Event,
    grace_s: float,
) -> bool:
    """Until nobody needs this node; False where it has failed, or another node.

    All nodes are asked to stop at once, and the first one still answers: it says when it is done.
    """
    stop_at: float | None = None
    while process.returncode is None and not peers.lost and not peers.left:
        if stopped.is_set() and stop_at is None:
            say("goes on until the first node has answered")
            stop_at = time.monotonic() + grace_s
        if stop_at is not None and time.monotonic() > stop_at:
            break
        await asyncio.sleep(LOOK_S)
    return stopped.is_set() or peers.left


async def _start(started: Command) -> asyncio.subprocess.Process:
    key = secrets.token_urlsafe(24)  # which nobody asks for here
    return await asyncio.create_subprocess_exec(
        *started.arguments,
        env=engine_environment(started, key),
        stdin=DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
    )


async def _answer(task: ServeTask) -> web.AppRunner:
    """Probes are the same on all nodes of a group; a node without a gateway answers them alone."""

    async def alive(request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", alive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, task.host, task.port).start()
    return runner


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends vLLM with whatever it started."""
    if process.returncode is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
