"""What is refused before anything is made, and what is noticed in seconds."""

import re
import signal
import subprocess
import time
from pathlib import Path

from conftest import NAMESPACE, STORE, Place, kubectl, wait_for

from thinktune.launch.cluster.charts import chart_folder

PREP = ("submit", "tiny", "--stage", "prep")
EVERYTHING = "jobs,pods,configmaps,serviceaccounts,networkpolicies,services"


def test_no_context(place: Place, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    with place.as_(tmp_path / "none"):
        ended = place.thinktune("status")
    assert ended.code == 64
    assert "no cluster to talk to" in ended.err
    assert "kubectl config use-context" in ended.err


def test_a_server_that_does_not_answer(place: Place, tmp_path: Path) -> None:
    config = kubectl("config", "view", "--raw")
    lines = [
        "    server: https://127.0.0.1:9" if line.strip().startswith("server:") else line
        for line in config.splitlines()
    ]
    (tmp_path / "dead").write_text("\n".join(lines))
    with place.as_(tmp_path / "dead"):
        ended = place.thinktune("status")
    assert ended.code == 69
    assert "the API server does not answer" in ended.err


def test_an_address_from_which_nothing_comes_back(place: Place, tmp_path: Path) -> None:
    """As without the VPN: told in seconds, not after minutes of trying."""
    (tmp_path / "far").write_text(
        re.sub(r"server: .*", "server: https://192.0.2.1:6443", kubectl("config", "view", "--raw"))
    )
    began = time.monotonic()
    with place.as_(tmp_path / "far"):
        ended = place.thinktune("status")
    assert ended.code == 69
    assert "the API server does not answer" in ended.err
    assert time.monotonic() - began < 20


def test_credentials_of_the_cluster_that_expired(place: Place, tmp_path: Path) -> None:
    config = as_user(tmp_path, "expired-token")
    with place.as_(config):
        submitted, doctor = place.thinktune(*PREP), place.thinktune("doctor", "tiny")
    assert submitted.code == 69
    assert "log in to the cluster again" in submitted.err
    assert doctor.code == 69
    assert "✗ context: " in doctor.out
    assert "log in to the cluster again" in doctor.out


def as_user(folder: Path, token: str) -> Path:
    """A kubeconfig with that token and nothing else to show."""
    config = folder / "config"
    config.write_text(kubectl("config", "view", "--raw", "--flatten"))
    own = ("--kubeconfig", str(config), "config")
    kubectl(*own, "set-credentials", "somebody", f"--token={token}")
    kubectl(*own, "set-context", "--current", "--user=somebody")
    return config


def test_no_rights(place: Place, tmp_path: Path) -> None:
    """As a service account to which nothing is bound."""
    place.kubectl("create", "serviceaccount", "nobody")
    token = place.kubectl("create", "token", "nobody").strip()
    with place.as_(as_user(tmp_path, token)):
        submitted, doctor = place.thinktune(*PREP), place.thinktune("doctor", "tiny")
    assert submitted.code == 69
    assert "forbidden" in submitted.err
    assert "thinktune doctor" in submitted.err
    assert doctor.code == 69
    assert "you may not create jobs" in doctor.out


def test_a_namespace_that_is_not_there(place: Place, tmp_path: Path) -> None:
    other = place.changed("elsewhere", tmp_path, namespace="thinktune-nowhere")
    ended = place.thinktune(*PREP, "--cluster", str(other))
    assert ended.code == 64
    assert "kubectl create namespace thinktune-nowhere" in ended.err


def test_a_secret_that_is_not_there(place: Place, tmp_path: Path) -> None:
    other = place.changed("poor", tmp_path, identity={"secret": "lost-keys"})
    ended = place.thinktune(*PREP, "--cluster", str(other))
    assert ended.code == 66
    assert "create secret generic lost-keys" in ended.err


def test_no_bucket_and_wrong_credentials(place: Place, tmp_path: Path) -> None:
    other = place.changed("bare", tmp_path, store="s3://not-a-bucket/e2e")
    ended = place.thinktune(*PREP, "--cluster", str(other))
    assert ended.code == 69
    assert "not-a-bucket" in ended.err
    place.environment["AWS_SECRET_ACCESS_KEY"] = "expired"
    try:
        refused = place.thinktune("status")
    finally:
        place.environment["AWS_SECRET_ACCESS_KEY"] = "secret-of-tests"
    assert refused.code == 69
    assert "the secret key is wrong" in refused.err


def test_no_helm(place: Place, tmp_path: Path) -> None:
    place.environment["PATH"] = str(tmp_path)
    try:
        ended = place.thinktune(*PREP, "--run", "helmless")
    finally:
        del place.environment["PATH"]
    assert ended.code == 66
    assert "install helm 3.14 or newer" in ended.err


def test_a_name_that_is_too_long(place: Place) -> None:
    """Too long with the longest of its releases' terminations, before the first is made."""
    ended = place.thinktune("submit", "tiny", "--run", "r" * 44)
    assert ended.code == 64
    assert "has 54 letters, and Helm takes 53" in ended.err
    assert "rrr" not in place.kubectl("get", "jobs", "-o", "name")


def test_an_image_that_is_not_there_is_noticed_in_seconds(place: Place, tmp_path: Path) -> None:
    other = place.changed("unbuilt", tmp_path, images={"registry": "localhost", "tag": "9.9.9"})
    began = time.monotonic()
    ended = place.thinktune(*PREP, "--run", "unbuilt", "--cluster", str(other))
    assert time.monotonic() - began < 60
    assert ended.code == 66
    assert "localhost/prep:9.9.9 cannot be pulled" in ended.err
    assert "make images" in ended.err
    why = place.thinktune("why", "unbuilt")
    assert why.code == 66
    assert "images.registry" in why.out
    fixed = place.thinktune(*PREP, "--run", "unbuilt")
    assert fixed.code == 0, fixed.out + fixed.err
    assert "with other image, and not started: made anew" in fixed.out
    place.thinktune("cancel", "unbuilt")


def test_a_conductor_of_a_wrong_image_is_made_anew(place: Place, tmp_path: Path) -> None:
    """Though it is to do the same."""
    other = place.changed("lame", tmp_path, images={"registry": "localhost", "tag": "9.9.9"})
    options = (*PREP, "--run", "lame", "--detach")
    assert place.thinktune(*options, "--cluster", str(other)).code == 0
    fixed = place.thinktune(*options)
    assert fixed.code == 0, fixed.err
    assert "conductor: starts the stages in turn" in fixed.out
    assert place.ended("lame-conductor")["type"] == "Complete"
    assert "conductor" not in place.thinktune(*options).out  # all is done
    place.thinktune("cancel", "lame")


def test_a_release_of_somebody_else_is_left_alone(place: Place, tmp_path: Path) -> None:
    """One that has our name for it, and no Job."""
    chart = tmp_path / "theirs"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: theirs\nversion: 1.0.0\n")
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs}\n"
    (chart / "templates" / "map.yaml").write_text(config_map)
    place.helm("install", "theirs-prep", str(chart))
    ended = place.thinktune(*PREP, "--run", "theirs")
    assert ended.code == 64
    assert "release theirs-prep: that name is taken by something else" in ended.err
    assert place.thinktune("cancel", "theirs").code == 66
    assert "theirs" in place.kubectl("get", "configmaps", "-o", "name")
    place.helm("uninstall", "theirs-prep")


def test_names_that_differ_by_a_dot_only(place: Place) -> None:
    """Kubernetes takes no dot in a Service's name: both would be called the same."""
    assert place.thinktune(*PREP, "--run", "v1.5").code == 0
    other = place.thinktune(*PREP, "--run", "v1-5")
    assert other.code == 64
    assert "that name is taken by run v1.5" in other.err
    assert place.thinktune("cancel", "v1-5").code == 66
    assert place.job("v1-5-prep")["metadata"]["labels"]["thinktune.dev/run"] == "v1.5"
    assert place.thinktune("cancel", "v1.5").code == 0


def test_an_image_of_other_code_says_so(place: Place, tmp_path: Path) -> None:
    """Its task is changed by hand: what a launcher of another version would write."""
    rendered = place.thinktune("render", "tiny", "--run", "newer", "--out", str(tmp_path))
    assert rendered.code == 0, rendered.err
    values = tmp_path / "newer" / "prep.values.yaml"
    values.write_text(re.sub(r'"code":"[^"]*"', '"code":"9.9.9+0"', values.read_text()))
    place.helm("install", "newer-prep", str(chart_folder("task")), "-f", str(values))
    assert place.ended("newer-prep")["reason"] == "PodFailurePolicy"
    why = place.thinktune("why", "newer")
    assert why.code == 64
    assert "it is of code 9.9.9+0, and this image holds" in why.out
    place.thinktune("cancel", "newer")


def test_more_gpus_than_there_are_is_refused_and_explained_when_forced(place: Place) -> None:
    assert place.thinktune(*PREP, "--run", "large").code == 0
    train = ("submit", "tiny", "--run", "large", "--stage", "train", "--set", "hardware=h100x8")
    refused = place.thinktune(*train)
    assert refused.code == 64
    assert "it asks for 1 × 8 NVIDIA-H100-80GB-HBM3" in refused.err
    assert "would be scheduled with --set hardware=two, or --set hardware=one" in refused.err
    assert not [j for j in place.get("jobs") if j["metadata"]["name"] == "large-train"]
    forced = place.start(*train, "--force")
    wait_for(lambda: place.pods("large-train") != [], 30, "the pod")
    wait_for(lambda: "finds no node" in place.thinktune("why", "large").out, 30, "the reason")
    why = place.thinktune("why", "large")
    assert "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3" in why.out
    assert why.code == 69
    forced.send_signal(signal.SIGINT)  # Ctrl-C
    out, _ = forced.communicate(timeout=30)
    assert forced.returncode == 130
    assert "stopped following large" in out
    assert place.job("large-train")["status"].get("active") == 1
    place.thinktune("cancel", "large")


def test_values_with_an_unknown_key(place: Place, tmp_path: Path) -> None:
    rendered = place.thinktune("render", "tiny", "--run", "bare", "--out", str(tmp_path))
    assert rendered.code == 0, rendered.err
    values = tmp_path / "bare" / "prep.values.yaml"
    values.write_text(values.read_text() + "patience: 3\n")
    chart = str(chart_folder("task"))
    command = ["helm", "-n", NAMESPACE, "install", "bare-prep", chart, "-f", str(values)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "patience" in refused.stderr
    other = place.changed("typo", tmp_path, pateince=3)
    ended = place.thinktune("status", "--cluster", str(other))
    assert ended.code == 64
    assert "pateince" in ended.err


def test_the_context_that_is_named_is_the_one_that_is_used(place: Place, tmp_path: Path) -> None:
    """By helm too: the current context leads nowhere."""
    config = tmp_path / "config"
    config.write_text(kubectl("config", "view", "--raw", "--flatten"))
    own = ("--kubeconfig", str(config), "config")
    right = kubectl(*own, "current-context").strip()
    kubectl(*own, "set-cluster", "nowhere", "--server=https://127.0.0.1:9")
    kubectl(*own, "set-context", "nowhere", "--cluster=nowhere")
    kubectl(*own, "use-context", "nowhere")
    with place.as_(config):
        ended = place.thinktune(*PREP, "--run", "named", "--context", right)
        canceled = place.thinktune("cancel", "named", "--context", right)
    assert ended.code == 0, ended.out + ended.err
    assert canceled.code == 0, canceled.err


def test_a_bare_helm_install_is_seen_by_the_launcher(place: Place, tmp_path: Path) -> None:
    """Under a name of the user's own."""
    rendered = place.thinktune("render", "tiny", "--run", "plain", "--out", str(tmp_path))
    assert rendered.code == 0, rendered.err
    values = str(tmp_path / "plain" / "prep.values.yaml")
    place.helm("install", "my-own-name", str(chart_folder("task")), "-f", values)
    followed = place.thinktune("submit", "tiny", "--run", "plain", "--stage", "prep")
    assert "prep: there already" in followed.out or "prep: done already" in followed.out
    assert followed.code == 0
    jobs = place.get("jobs", "-l", "thinktune.dev/run=plain")
    assert [job["metadata"]["name"] for job in jobs] == ["my-own-name"]
    assert place.thinktune("cancel", "plain").code == 0
    assert "my-own-name" not in place.helm("list") + place.kubectl("get", EVERYTHING, "-o", "name")


def test_what_kubectl_applied_is_taken_up_and_cleared_away(place: Place, tmp_path: Path) -> None:
    """Rendered files in a repository, and no Helm: the first attempt has failed there."""
    changes = ("--set", "data.split.test_rows=5000")
    rendered = place.thinktune("render", "tiny", "--run", "git", "--out", str(tmp_path), *changes)
    assert rendered.code == 0, rendered.err
    kubectl("apply", "-f", str(tmp_path / "git" / "prep.yaml"))  # its namespace stands in it
    assert place.ended("git-prep")["type"] == "Failed"
    again = place.thinktune(*PREP, "--run", "git")
    assert again.code == 0, again.out + again.err
    assert "prep: failed before" in again.out
    assert place.thinktune("cancel", "git").code == 0
    kubectl("apply", "-f", str(tmp_path / "git" / "prep.yaml"))
    assert place.thinktune("cancel", "git").code == 0
    assert "git-prep" not in place.kubectl("get", EVERYTHING, "-o", "name")


def test_doctor_finds_all_in_order(place: Place) -> None:
    ended = place.thinktune("doctor", "tiny")
    assert ended.code == 0, ended.out
    for name in ("context", "helm", "rights", "secret store-keys", "nodes", "image train", "store"):
        assert f"✓ {name}: " in ended.out
    assert f"{NAMESPACE}, Pod Security: restricted" in ended.out
    left = [p["metadata"] for p in place.get("pods,networkpolicies")]
    left = [each for each in left if each["name"].startswith("thinktune-doctor")]
    assert all("deletionTimestamp" in metadata for metadata in left)


def test_doctor_names_what_is_wrong(place: Place, tmp_path: Path) -> None:
    literals = (
        "--from-literal=AWS_ACCESS_KEY_ID=expired",
        "--from-literal=AWS_SECRET_ACCESS_KEY=x",
    )
    place.kubectl("create", "secret", "generic", "expired-keys", *literals)
    images = {"registry": "localhost", "digests": {"train": "sha256:" + "0" * 64}}
    identity = {"secret": "expired-keys"}
    other = place.changed("ill", tmp_path, identity=identity, images=images)
    ended = place.thinktune("doctor", "tiny", "--cluster", str(other))
    assert ended.code == 69
    assert "✗ store: " in ended.out
    assert "✗ image train: " in ended.out
    assert "✓ image prep: " in ended.out


def test_doctor_sees_what_the_network_policy_closes(place: Place, tmp_path: Path) -> None:
    """The store's address is right, and stages would not be let out to it."""
    network = {"store_namespace": STORE, "store_ports": [9000]}
    other = place.changed("closed", tmp_path, network=network)
    ended = place.thinktune("doctor", "tiny", "--cluster", str(other))
    assert ended.code == 69, ended.out
    assert "✗ store: " in ended.out


def test_doctor_asks_for_a_tracker_s_key(place: Place) -> None:
    ended = place.thinktune("doctor", "tiny", "--set", "train.tracking=[wandb]")
    assert ended.code == 69
    assert "no secret of env_from_secrets has WANDB_API_KEY" in ended.out
    refused = place.thinktune("submit", "tiny", "--set", "train.tracking=[wandb]")
    assert refused.code == 66
    assert "WANDB_API_KEY" in refused.err
