"""What the commands about a table have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.jobs.cli.main import main
from captioner.jobs.cli.out import configure_for
from captioner.jobs.errors import ExitCode
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.http.access import NO_EXCEPTIONS, access_rules
from tests.support.servers import S3Server
from tests.support.stores import put_rows, write_s3_job


@pytest.fixture
def on_a_store(tmp_path: Path, s3: S3Server) -> Iterator[tuple[str, str]]:
    """Yield an OUT on a store, and the job file without which nothing finds the store."""
    out = f"{s3.bucket({})}/out"
    put_rows(out_path(out) / "captions" / "1.parquet", "/a.jpg")
    configure({})
    yield out, str(write_s3_job(tmp_path / "job.toml", s3, "nothing", batch_size=8))
    configure({})


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "OUT"],
        ["status", "OUT", "--failed"],
        ["compact", "OUT"],
        ["report", "OUT", "--to", "report.html"],
        ["index", "OUT", "--index", "index.sqlite"],
        ["search", "dog", "OUT", "--index", "index.sqlite"],
        ["duplicates", "OUT", "--index", "index.sqlite"],
        ["export", "OUT", "--format", "csv", "--to", "texts.csv"],
        ["review", "OUT", "--csv", "sheet.csv"],
        ["review", "OUT", "--min-confidence", "0.5"],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_a_job_file_says_how_to_reach_the_store(
    arguments: list[str],
    on_a_store: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out, job_file = on_a_store
    command = [out if argument == "OUT" else argument for argument in arguments]
    assert main([*command, "--config", job_file]) == ExitCode.DONE, capsys.readouterr().err


def test_the_last_run_in_out_says_which_hosts_may_be_asked_and_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "of a stranger" / "runs" / "1"
    run.mkdir(parents=True)
    (run / "job.toml").write_text("allow_private = true")
    monkeypatch.chdir(tmp_path / "of a stranger")
    for out in (None, "s3://bucket/out", str(tmp_path)):
        configure_for(None, out)
        assert not access_rules().allow_private
    assert main(["evaluate", "--checkpoint", str(tmp_path)]) == ExitCode.USAGE
    assert not access_rules().allow_private
    main(["evaluate", "--reviews", str(tmp_path / "of a stranger")])
    assert access_rules().allow_private
    configure({}, NO_EXCEPTIONS)


def test_a_job_file_with_a_mistake_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_file = tmp_path / "job.toml"
    job_file.write_text('storage_options = "s3"')
    assert main(["status", str(tmp_path), "--config", str(job_file)]) == ExitCode.USAGE
    assert "must be a table for each protocol" in capsys.readouterr().err
