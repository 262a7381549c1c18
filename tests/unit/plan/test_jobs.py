"""Jobs as text, and as continuous integration reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ortc import __version__
from ortc.cli.matrix import MATRICES, MOST_OF_GITHUB, matrix_text
from ortc.common.errors import UsageError
from ortc.plan.jobs import Job, jobs_text, read_jobs, spec_of


def job(number: int = 0, **fields: Any) -> Job:
    return Job(
        **{
            "ortc_version": __version__,
            "id": f"m{number}-1-cpu-abc",
            "spec": f"specs/m{number}.yaml",
            "spec_sha256": "0" * 64,
            "plan_sha256": "1" * 64,
            "name": f"m{number}",
            "version": "1",
            "target": "cpu",
            "platform": "linux/amd64",
            "gpu": False,
            "browser": False,
            "cached": 2,
            "will_run": 3,
            **fields,
        }
    )


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_written_is_read(count: int) -> None:
    jobs = tuple(job(number, overrides=("a.b=ü $HOME `x`",)) for number in range(count))
    assert read_jobs(jobs_text(jobs), "JOB") == jobs
    assert read_jobs(jobs_text(jobs, indent=2), "JOB") == jobs


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spec": "/etc/passwd"}, "`spec`"),
        ({"spec": "specs/../../x.yaml"}, "`spec`"),
        ({"spec": ""}, "`spec`"),
        ({"id": "a b"}, "`id`"),
        ({"search": "everything"}, "`search`"),
        ({"format_version": 2}, "`format_version`"),
        ({"trust_entrypoint": ["os"]}, "`trust_entrypoint`"),
        ({"ortc_version": "9.0"}, "a job of ortc '9.0'"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_what_is_no_job_is_refused(change: dict[str, Any], told: str, alone: bool) -> None:
    document = {**job().model_dump(mode="json"), **change}
    with pytest.raises(UsageError) as error:
        read_jobs(json.dumps(document if alone else {"format_version": 1, "jobs": [document]}), "JOB")
    # The field is named by its place in the list.
    assert told.strip("`") in error.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '{"jobs": []}', '{"jobs": {}}', "[" * 9000])
def test_what_is_no_json_of_jobs_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_jobs(text, "JOB")


def test_a_spec_that_leads_out_of_the_checkout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("", "utf-8")
    root = tmp_path / "checkout"
    (root / "specs").mkdir(parents=True)
    (root / "specs/m0.yaml").symlink_to(tmp_path / "outside.yaml")
    with pytest.raises(UsageError, match="lies outside of"):
        spec_of(job(), root)
    with pytest.raises(UsageError, match="is not in"):
        spec_of(job(1), root)


@pytest.mark.parametrize("count", [1, 256, 257, 600, 2000])
def test_a_matrix_of_github_has_few_enough_entries_and_all_jobs(count: int) -> None:
    platforms = ("linux/amd64", "linux/arm64", "linux/amd64")
    jobs = [job(number, platform=platforms[number % 3], gpu=number % 3 == 2) for number in range(count)]
    text = matrix_text("github", jobs)
    assert text.count("\n") == 1
    entries = json.loads(text)["include"]
    assert len(entries) == min(count, len(entries)) <= MOST_OF_GITHUB
    assert len({entry["id"] for entry in entries}) == len(entries)
    found = [one for entry in entries for one in read_jobs(entry["job"], "JOB")]
    assert sorted(one.id for one in found) == sorted(one.id for one in jobs)
    for entry in entries:
        assert {(one.platform, one.gpu) for one in read_jobs(entry["job"], "JOB")} == {
            (entry["platform"], entry["gpu"])
        }


def test_a_list_of_argo_has_texts() -> None:
    (item,) = json.loads(matrix_text("argo", [job()]))
    assert all(isinstance(value, str) for value in item.values())
    assert item["gpu"] == "false"
    assert read_jobs(item["job"], "JOB") == (job(),)


@pytest.mark.parametrize("kind", MATRICES)
def test_no_text_of_a_job_is_a_command_of_the_pipeline(kind: str) -> None:
    hostile = job(overrides=("a=$(touch x)`touch y`'\"; ${{ secrets.X }} $[[ inputs.y ]]",))
    text = matrix_text(kind, [hostile])
    document = json.loads(text)
    entries = {"github": lambda: document["include"], "argo": lambda: document}.get(kind)
    if entries is not None:
        given = entries()[0]["job"]
    else:
        (entry,) = (value for name, value in document.items() if name != "stages")
        assert entry["script"] == ['ortc job run "$ORTC_JOB"']
        assert entry["variables"]["ORTC_JOB"]["expand"] is False
        given = entry["variables"]["ORTC_JOB"]["value"]
    assert read_jobs(given, "JOB") == (hostile,)
