"""The workflows in .github/ give away nothing; and these checks can fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

GITHUB = Path(__file__).parent.parent / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.y*ml"))
USES = re.compile(r"^\s*(?:-\s+)?uses:\s*(?P<what>\S+)(?P<rest>.*)$", re.M)
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
VERSION = re.compile(r"^\s+# v\d+\.\d+\.\d+$")


# --- what is checked: each returns one sentence for each fault in a workflow's text


def unpinned_actions(text: str) -> list[str]:
    """Return the actions that are not a full commit with the version in a comment."""
    return [
        f"`{use['what']}{use['rest']}`: write owner/name@<40 hex digits> # v1.2.3"
        for use in USES.finditer(text)
        if not PINNED.match(use["what"]) or not VERSION.match(use["rest"])
    ]


def open_permissions(text: str) -> list[str]:
    """Return where a job could get more rights than it names."""
    flow = yaml.safe_load(text)
    faults = []
    if flow.get("permissions") != {}:
        faults.append("the workflow does not begin with `permissions: {}`")
    for name, job in flow["jobs"].items():
        rights = job.get("permissions")
        if not isinstance(rights, dict):
            faults.append(f"job {name}: permissions are {rights!r}, not a mapping")
    return faults


def writers(text: str) -> set[str]:
    """Return `job: scope` for everything that a workflow may write."""
    return {
        f"{name}: {scope}"
        for name, job in yaml.safe_load(text)["jobs"].items()
        for scope, right in (job.get("permissions") or {}).items()
        if right == "write"
    }


def triggers(text: str) -> dict[str, dict]:
    """Return the events of a workflow (YAML 1.1 reads the key `on` as true)."""
    flow = yaml.safe_load(text)
    events = flow.get("on", flow.get(True))
    if isinstance(events, str):
        events = [events]
    if isinstance(events, list):
        events = dict.fromkeys(events)
    return {event: detail or {} for event, detail in events.items()}


def dangerous_triggers(text: str) -> list[str]:
    """Return events that run with the repository's rights on a stranger's request."""
    allowed = {"push", "pull_request", "workflow_dispatch", "schedule"}
    return [
        f"`{event}` is not allowed" for event in triggers(text) if event not in allowed
    ]


def kept_credentials(text: str) -> list[str]:
    """Return the checkouts that leave a token on the disk."""
    return [
        f"job {name}: checkout without `persist-credentials: false`"
        for name, job in yaml.safe_load(text)["jobs"].items()
        for step in job.get("steps", [])
        if step.get("uses", "").startswith("actions/checkout@")
        and step.get("with", {}).get("persist-credentials") is not False
    ]


def endless_jobs(text: str) -> list[str]:
    """Return the jobs without a time limit."""
    jobs = yaml.safe_load(text)["jobs"].items()
    return [
        f"job {name} has no timeout-minutes"
        for name, job in jobs
        if "timeout-minutes" not in job
    ]


def secrets(text: str) -> list[str]:
    """Return the lines that read a secret. The token of a run is `github.token`."""
    return [
        line.strip()
        for line in text.splitlines()
        if re.search(r"\bsecrets\b\s*[.\[:]", line)
    ]


def gpu_faults(text: str) -> list[str]:
    """Return what would let unread code onto the GPU runner."""
    faults = []
    types = (
        triggers(text).get("pull_request", {}).get("types", ["opened", "synchronize"])
    )
    if types != ["labeled"]:
        faults.append(f"pull_request types are {types}: only `labeled` is allowed")
    for name, job in yaml.safe_load(text)["jobs"].items():
        condition = " ".join(str(job.get("if", "")).split())
        if "vars.GPU_RUNNER_LABEL != ''" not in condition:
            faults.append(f"job {name} runs (red) where there is no GPU runner")
        if "github.event.label.name == 'gpu-ci'" not in condition:
            faults.append(f"job {name} runs for labels other than gpu-ci")
        if job.get("environment") != "gpu":
            faults.append(f"job {name} is not in the environment that has reviewers")
        if set(job.get("permissions", {}).values()) - {"read"}:
            faults.append(f"job {name} may write")
        if job.get("timeout-minutes", 360) > 30:
            faults.append(f"job {name} may run for more than 30 minutes")
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                ref = step.get("with", {}).get("ref", "")
                if "github.event.pull_request.head.sha" not in ref:
                    faults.append(
                        f"job {name} checks out what was pushed after the label"
                    )
    return faults


CHECKS = [
    unpinned_actions,
    open_permissions,
    dangerous_triggers,
    kept_credentials,
    endless_jobs,
    secrets,
]


# --- the workflows of this repository


def test_there_are_the_four_workflows():
    assert {path.stem for path in WORKFLOWS} == {"ci", "gpu", "deploy", "scheduled"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path: Path, check):
    assert check(path.read_text(encoding="utf-8")) == []


def test_gpu_runs_only_what_a_maintainer_read():
    assert (
        gpu_faults((GITHUB / "workflows" / "gpu.yml").read_text(encoding="utf-8")) == []
    )


def test_only_three_jobs_may_write():
    found = {
        f"{path.stem}/{job}"
        for path in WORKFLOWS
        for job in writers(path.read_text(encoding="utf-8"))
    }
    assert found == {
        "deploy/notebooks: contents",
        "deploy/deploy: pages",
        "deploy/deploy: id-token",
        "scheduled/report: issues",
    }


def test_what_may_write_runs_no_code_of_the_project():
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        jobs = yaml.safe_load(text)["jobs"]
        for name in {one.partition(":")[0] for one in writers(text)}:
            uses = [step.get("uses", "") for step in jobs[name]["steps"]]
            assert not any(use.startswith("actions/checkout@") for use in uses), name


def test_deploy_is_main_only_and_uses_no_cache():
    text = (GITHUB / "workflows" / "deploy.yml").read_text(encoding="utf-8")
    events = triggers(text)
    assert set(events) == {"push", "workflow_dispatch"}
    assert events["push"] == {"branches": ["main"]}
    for name, job in yaml.safe_load(text)["jobs"].items():
        assert job["if"] == "github.ref == 'refs/heads/main'", name
    assert "cache" not in re.sub(r"#.*", "", text)


def test_ci_runs_the_same_command_as_people():
    text = (GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8")
    runs = [step.get("run") for step in yaml.safe_load(text)["jobs"]["test"]["steps"]]
    assert "bash .ci/run" in runs
    script = GITHUB.parent / ".ci" / "run"
    assert "make test" in script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK), "chmod +x .ci/run"


# --- zizmor


def zizmor(folder: Path) -> subprocess.CompletedProcess:
    """Run the auditor of workflows on `folder`, or skip where it is not installed."""
    beside = Path(sys.executable).with_name("zizmor")
    program = str(beside) if beside.exists() else shutil.which("zizmor")
    if program is None:
        pytest.skip("zizmor is not installed here; `make test` installs it")
    command = [
        program,
        "--offline",
        "--pedantic",
        "--no-progress",
        "--color=never",
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing():
    answer = zizmor(GITHUB)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "No findings" in answer.stdout


def test_zizmor_would_find_something(tmp_path: Path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (folder / "ci.yml").write_text(
        text.replace("persist-credentials: false", "fetch-depth: 1")
    )
    answer = zizmor(tmp_path)
    assert answer.returncode != 0
    assert "artipacked" in answer.stdout


# --- each check can fail: the smallest break, in a copy

SHA = "3d3c42e5aac5ba805825da76410c181273ba90b1"
GOOD = f"""\
name: good
on:
  pull_request:
    types: [labeled]
permissions: {{}}
jobs:
  one:
    if: vars.GPU_RUNNER_LABEL != '' && github.event.label.name == 'gpu-ci'
    runs-on: ubuntu-24.04
    environment: gpu
    timeout-minutes: 20
    permissions:
      contents: read # to check out
    steps:
      - uses: actions/checkout@{SHA} # v7.0.1
        with:
          ref: ${{{{ github.event.pull_request.head.sha }}}}
          persist-credentials: false
      - run: make test
"""
BREAKS = [
    (unpinned_actions, f"@{SHA} # v7.0.1", "@v7"),
    (unpinned_actions, f"@{SHA} # v7.0.1", "@main # v7.0.1"),
    (unpinned_actions, " # v7.0.1", ""),
    (unpinned_actions, SHA, SHA[:12]),
    (unpinned_actions, "- run: make test", "- uses: docker://alpine:latest # v1.2.3"),
    (open_permissions, "permissions: {}\n", ""),
    (open_permissions, "permissions: {}", "permissions: write-all"),
    (open_permissions, "permissions: {}", "permissions: {contents: read}"),
    (open_permissions, "    permissions:\n      contents: read # to check out\n", ""),
    (open_permissions, "\n      contents: read # to check out", " write-all"),
    (dangerous_triggers, "pull_request:", "pull_request_target:"),
    (
        dangerous_triggers,
        "on:\n  pull_request:\n    types: [labeled]",
        "on: workflow_run",
    ),
    (
        dangerous_triggers,
        "on:\n  pull_request:\n    types: [labeled]",
        "on: [push, issue_comment]",
    ),
    (kept_credentials, "          persist-credentials: false\n", ""),
    (kept_credentials, "persist-credentials: false", "persist-credentials: true"),
    (endless_jobs, "    timeout-minutes: 20\n", ""),
    (secrets, "make test", "make test TOKEN=${{ secrets.TOKEN }}"),
    (secrets, "make test", "make test TOKEN=${{ secrets['TOKEN'] }}"),
    (gpu_faults, "[labeled]", "[labeled, synchronize]"),
    (gpu_faults, "    types: [labeled]\n", ""),
    (gpu_faults, "vars.GPU_RUNNER_LABEL != '' && ", ""),
    (gpu_faults, "== 'gpu-ci'", "!= 'docs'"),
    (gpu_faults, "    environment: gpu\n", ""),
    (gpu_faults, "contents: read", "contents: write"),
    (gpu_faults, "timeout-minutes: 20", "timeout-minutes: 90"),
    (gpu_faults, "github.event.pull_request.head.sha", "github.head_ref"),
]


@pytest.mark.parametrize(
    "check", [*CHECKS, gpu_faults], ids=lambda check: check.__name__
)
def test_good_workflow_passes(check):
    assert check(GOOD) == []


@pytest.mark.parametrize(("check", "old", "new"), BREAKS)
def test_broken_workflow_is_found(check, old: str, new: str):
    assert GOOD.count(old) >= 1
    assert check(GOOD.replace(old, new, 1))


# --- the forms for readers

FORMS = GITHUB / "ISSUE_TEMPLATE"


def form_faults(zh: dict, en: dict) -> list[str]:
    """Return how the two languages of a form differ, or would not be shown."""
    faults = []
    for key in ("name", "description", "body"):
        faults += [f"{key} is missing" for form in (zh, en) if not form.get(key)]
    fields = [
        [(f["type"], f.get("id"), f.get("validations")) for f in form["body"]]
        for form in (zh, en)
    ]
    if fields[0] != fields[1]:
        faults.append("the fields differ between the languages")
    for kind, identity, _ in fields[0] + fields[1]:
        if kind != "markdown" and not isinstance(identity, str):
            faults.append(f"a field of type {kind} has the id {identity!r}")
    options = [
        [len(f["attributes"].get("options", [])) for f in form["body"]]
        for form in (zh, en)
    ]
    return faults + (["the choices differ"] if options[0] != options[1] else [])


@pytest.mark.parametrize("name", ["wrong", "reads_badly"])
def test_issue_form_in_both_languages(name: str):
    zh, en = (
        yaml.safe_load((FORMS / f"{name}.{language}.yml").read_text(encoding="utf-8"))
        for language in ("zh", "en")
    )
    assert form_faults(zh, en) == []
    en["body"][-1]["id"] = True
    assert len(form_faults(zh, en)) == 2
    del en["body"][-1]
    assert form_faults(zh, en)[0] == "the fields differ between the languages"
