"""Causes that the end-to-end tests do not provoke, from objects as the API server gives them."""

from typing import Any

import pytest
from launching import depends
from observed_objects import NOW, failed, job, pod, waiting_job

from thinktune.launch.cluster.api import Object
from thinktune.launch.cluster.kube import QUEUE_LABEL
from thinktune.launch.status.observed import Observed
from thinktune.launch.status.pod_status import Diagnosis
from thinktune.launch.status.why import explain
from thinktune.schema.manifest import Progress
from thinktune.schema.stages import STAGE_INFO, Stage
from thinktune.schema.termination import PodTermination, split_error


def ended(**how: Any) -> dict[str, Any]:
    return {"name": "task", "image": "i", "state": {"terminated": how}}


def said(seen: Observed, *events: str) -> Diagnosis:
    told = [{"type": "Warning", "reason": "FailedCreate", "message": m} for m in events]
    return explain(seen, lambda _: told)


def test_the_deadline() -> None:
    seen = Observed("r", "train", failed("DeadlineExceeded", "Job was active longer"))
    assert "ran longer than it may" in said(seen).cause
    assert "deadline_hours" in said(seen).remedy


@pytest.mark.parametrize(
    ("stage", "gpus", "remedy"),
    [
        ("prep", "none", "prep.memory_gib"),
        ("train", "all", "hardware with more host memory"),
        ("evaluate", "none", "prep.memory_gib"),
    ],
)
def test_out_of_host_memory(
    stage: Stage, gpus: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGE_INFO, stage, STAGE_INFO[stage]._replace(gpus=gpus))
    status = [ended(exitCode=137, reason="OOMKilled")]
    dead = pod("Failed", containerStatuses=status)
    found = said(Observed("r", stage, failed("BackoffLimitExceeded", "too often"), [dead]))
    assert "OOMKilled" in found.cause
    assert remedy in found.remedy
    assert found.code == 70


@pytest.mark.parametrize(
    ("said_of_it", "remedy"),
    [
        (
            "couldn't assign flavors: resource ephemeral-storage unavailable in ClusterQueue",
            "cover",
        ),
        (
            "couldn't assign flavors: insufficient unused quota for nvidia.com/gpu",
            "describe localq",
        ),
    ],
)
def test_a_queue_says_what_it_waits_for(said_of_it: str, remedy: str) -> None:
    """Kueue 0.15 says it of its Workload, and of the Job only that there is one."""
    waiting = job()
    waiting["spec"]["suspend"] = True
    waiting["metadata"]["labels"][QUEUE_LABEL] = "gpus"

    def events(about: Object) -> list[Object]:
        if about.get("kind") == "Workload":
            assert about["metadata"]["name"] == "job-r-train-1b5a2"
            return [{"reason": "Pending", "message": said_of_it, "lastTimestamp": NOW}]
        return [{"reason": "CreatedWorkload", "message": "Created Workload: ns/job-r-train-1b5a2"}]

    found = explain(Observed("r", "train", waiting), events)
    assert found.evidence == (said_of_it,)
    assert remedy in found.remedy


def test_an_error_of_ours_is_taken_apart() -> None:
    words = "error: GPU: out of memory with rows of 8192 tokens; lower data.max_tokens"
    ending = PodTermination(pod="p", began=NOW, ended=NOW, code=73, error_line=words)
    message = "Container task for pod jobs/p failed with exit code 73 matching FailJob rule"
    seen = Observed("r", "train", failed("PodFailurePolicy", message), terminations=[ending])
    found = said(seen)
    assert found.code == 73
    assert found.cause == "train failed with exit code 73 (out of GPU memory)"
    assert found.evidence[0] == "GPU: out of memory with rows of 8192 tokens"
    assert found.remedy.startswith("Lower data.max_tokens. Then submit again")


def test_the_end_of_an_earlier_job_is_not_this_one_s() -> None:
    old = PodTermination(
        pod="p", began=NOW, ended="2026-11-22T08:00:00+00:00", code=65, error_line="error: a: b; c"
    )
    seen = Observed("r", "train", failed("BackoffLimitExceeded", "too often"), terminations=[old])
    assert said(seen).code == 70
    assert "b" not in said(seen).evidence


def test_words_that_kubelet_kept_where_the_store_has_none() -> None:
    message = "train: 3/10\n[rank 2] error: store: cannot be reached; check the endpoint\n"
    dead = pod("Failed", containerStatuses=[ended(exitCode=69, reason="Error", message=message)])
    found = said(Observed("r", "train", failed("BackoffLimitExceeded", "too often"), [dead]))
    assert found.evidence[0] == "store: cannot be reached"
    assert found.code == 69


def test_a_job_that_gets_no_pod() -> None:
    quota = 'pods "r-train-x" is forbidden: exceeded quota: gpus'
    found = said(Observed("r", "train", job()), quota)
    assert found.evidence == (quota,)
    assert not found.hopeless  # others may leave room
    rule = "violates PodSecurity"
    assert not said(Observed("r", "train", job()), rule).hopeless  # a webhook may fail once
    assert said(Observed("r", "train", job()), rule, rule, rule).hopeless


def test_a_refusal_before_the_last_pod_is_no_longer_true() -> None:
    events = [
        {"reason": "FailedCreate", "message": "no", "count": 9},
        {"reason": "SuccessfulCreate", "message": "yes"},
    ]
    found = explain(Observed("r", "train", job()), lambda _: events)
    assert found.code == 0
    assert "a moment ago" in found.cause


def test_a_job_that_ended_well_and_left_nothing() -> None:
    done = job(conditions=[{"type": "Complete", "status": "True", "reason": "Completed"}])
    found = said(Observed("r", "train", done))
    assert "its artifact is not in the store" in found.cause
    assert found.code == 66


def test_the_last_line_of_a_traceback() -> None:
    message = "Traceback (most recent call last):\n  …\nKeyError: 'x'\n\n"
    dead = pod("Failed", containerStatuses=[ended(exitCode=70, reason="Error", message=message)])
    found = said(Observed("r", "train", failed("BackoffLimitExceeded", "too often"), [dead]))
    assert found.evidence[-1] == "Its last line: KeyError: 'x'"
    assert found.code == 70


def test_a_pod_that_never_said_anything() -> None:
    silent = pod("Running", startTime="2020-01-01T00:00:00Z")
    found = said(Observed("r", "train", job(active=1), [silent]))
    assert "has said nothing for" in found.cause
    assert found.code == 70


def test_no_node() -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    waiting = pod(conditions=[condition | {"message": message}])
    found = said(Observed("r", "train", job(active=1), [waiting]))
    assert "finds no node" in found.cause
    assert found.evidence[0] == message
    assert "4 nvidia.com/gpu" in found.evidence[1]
    assert "nvidia.com/gpu.product=X" in found.evidence[1]
    assert not found.hopeless  # one may become free


def test_a_secret_that_is_gone() -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}
    status = {"name": "task", "image": "i", "state": {"waiting": waiting}}
    found = said(Observed("r", "train", job(active=1), [pod(containerStatuses=[status])]))
    assert "kubectl create secret generic keys" in found.remedy
    assert found.code == 66


def test_silence() -> None:
    old = Progress(
        stage="train", phase="train", done=5, of=9, unit="steps", eta_s=None, attempt="a",
        heartbeat="2020-01-01T00:00:00+00:00",
    )  # fmt: skip
    found = said(Observed("r", "train", job(active=1), [pod("Running")], progress=old))
    assert "has said nothing for" in found.cause
    assert "5/9 steps" in found.evidence[0]


@pytest.mark.parametrize(
    ("code", "words"), [(0, "Nothing"), (137, "SIGKILL"), (70, "exit code 70 (internal error)")]
)
def test_how_the_last_pod_ended_is_told_while_the_next_runs(code: int, words: str) -> None:
    terminations = (
        [PodTermination(pod="p", began=NOW, ended=NOW, code=code, error_line="")] if code else []
    )
    seen = Observed("r", "train", job(active=1), [pod("Running")], terminations=terminations)
    assert words in said(seen).paragraph()


@pytest.mark.parametrize(
    ("line", "taken_apart"),
    [
        ("error: GPU: out of memory; lower it", ("GPU: out of memory", "lower it")),
        ("error: a: b; c; d", ("a: b", "c; d")),
        ("error: nothing to do about it", ("nothing to do about it", "")),
        ("KeyError: 'x'; really", None),
        ("", None),
    ],
)  # fmt: skip
def test_an_error_line(line: str, taken_apart: tuple[str, str] | None) -> None:
    assert split_error(line) == taken_apart


def test_a_code_in_a_message_counts_only_where_the_reason_says_so() -> None:
    """A webhook's text may have any words in it."""
    told = "too often; the last pod: exit code 73"
    assert said(Observed("r", "train", failed("BackoffLimitExceeded", told))).code == 70
    policy = "Container task for pod jobs/p failed with exit code 73 matching FailJob rule"
    assert said(Observed("r", "train", failed("PodFailurePolicy", policy))).code == 73


def test_a_container_that_cannot_be_made() -> None:
    waiting = {"reason": "CreateContainerError", "message": "no such device"}
    status = {"name": "task", "image": "i", "state": {"waiting": waiting}}
    found = said(Observed("r", "train", job(active=1), [pod(containerStatuses=[status])]))
    assert found.hopeless
    assert found.evidence == ("no such device",)
    assert found.remedy == "Fix what it names, then cancel and submit again."


def test_what_a_node_says_of_a_pod_that_it_gave_up() -> None:
    evicted = pod("Failed", reason="Evicted", message="The node was low on memory")
    found = said(Observed("r", "train", job(), [evicted]))
    assert found.evidence == ("A pod was ended by its node: Evicted, The node was low on memory",)


def test_a_pod_with_a_node_that_does_not_start() -> None:
    """Its volume, say; nothing in its status has it."""
    found = said(Observed("r", "train", job(), [pod()]), 'MountVolume.SetUp failed for "cache"')
    assert "has a node but does not start" in found.cause
    assert "kubectl describe pod r-train-1" in found.remedy
    assert "is about to start" in said(Observed("r", "train", job(), [pod()])).cause


def test_a_stage_waits_for_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    held = waiting_job()
    assert "evaluate waits until train is committed" in said(Observed("r", "evaluate", held)).cause
    depends(monkeypatch, "evaluate", "prep")
    assert "evaluate waits until prep is committed" in said(Observed("r", "evaluate", held)).cause
    absent = said(Observed("r", "evaluate"))
    assert absent.remedy == "`thinktune submit RECIPE --stage evaluate` does, after prep."
    depends(monkeypatch, "evaluate")
    assert "evaluate waits for its turn" in said(Observed("r", "evaluate", held)).cause
    assert said(Observed("r", "evaluate")).remedy.endswith("--stage evaluate` does.")
