"""The page that a run leaves."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import Interrupted, JobError, Terminated
from captioner.jobs.publish import pictures as pictures_module
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from tests.support.html import Html
from tests.support.photographs import photograph, write_photographs
from tests.support.servers import HttpServer

HEADING = "{} of {} images captioned"


def page_of(job: JobConfig, run_id: str = "*") -> Html:
    (path,) = Path(job.out).glob(f"runs/{run_id}/report.html")
    return Html(path.read_text(encoding="utf-8"))


def pictures(page: Html) -> int:
    return sum(link.startswith("data:image/jpeg;base64,") for link in page.links)


def test_a_run_says_what_it_did_and_shows_its_captions(
    tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 30)
    (photos / "torn.jpg").write_bytes(photograph(1)[:-200])
    (photos / "notes.docx").write_text("no image")
    job = replace(job, checkpoint=calibrated_checkpoint, min_confidence=0.5, partition_size=5)
    report = run_job(job)
    page = page_of(job)
    assert HEADING.format(30, 31) in page.text and "Done." in page.text
    assert f"To review {report.needs_review}" in page.text
    assert "Least sure" in page.text and "Surest" in page.text
    assert pictures(page) == 24
    assert "Damaged, or no image: 1" in page.text and str(photos / "torn.jpg") in page.text
    assert "Searching for captions" in page.text and "Images per second over the" in page.text
    assert str(report.captioner) in page.text and "batch_size = 8" in page.text
    assert (page.tags["script"], page.tags["link"]) == (0, 0)
    assert all(link.startswith("data:") for link in page.links)


def test_rows_that_replaced_others_are_in_the_page(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 4)
    run_job(job)
    (photos / "002.jpg").write_bytes(photograph(20))
    (photos / "003.jpg").write_bytes(b"no image any more")
    report = run_job(job)
    page = page_of(job, report.run_id)
    assert "Changed since they were captioned 2" in page.text
    assert HEADING.format(1, 2) in page.text and pictures(page) == 1
    assert "002.jpg" in page.text and str(photos / "003.jpg") in page.text
    assert "001.jpg" not in page.text


def test_a_run_that_only_adds_embeddings_shows_its_captions(
    tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path
) -> None:
    write_photographs(tmp_path / "photos", 4)
    job = replace(job, checkpoint=calibrated_checkpoint)
    run_job(job)
    report = run_job(replace(job, embeddings=True))
    page = page_of(job, report.run_id)
    assert "Without an embedding 4" in page.text
    assert "Half of the captions have a confidence of" in page.text
    assert pictures(page) == 4


def test_a_run_without_work_says_so(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 3)
    run_job(job)
    report = run_job(job)
    page = page_of(job, report.run_id)
    assert "Nothing to do" in page.text and "Every image has a row already." in page.text
    assert pictures(page) == 0


def test_too_many_failures_are_explained(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 3)
    (photos / "empty.jpg").touch()
    assert run_job(replace(job, max_failures="10%")).exit_code == 3
    text = page_of(job).text
    assert "Done, with too many failed images." in text
    assert "Of 4 images, 1 failed: the job allows 10%." in text


def test_a_stopped_run_has_a_page_with_numbers(
    tmp_path: Path, job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path / "photos", 3)

    def stop(*_: object) -> None:
        raise Terminated

    monkeypatch.setattr("captioner.jobs.run._caption", stop)
    with pytest.raises(Interrupted):
        run_job(job)
    text = page_of(job).text
    assert "0 of 3 images done" in text and "Stopped by SIGTERM." in text
    assert "The same command continues from here." in text


def test_a_failed_run_has_a_page_with_its_error(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 3)
    no_workers = LocalCluster(n_workers=0, processes=False, dashboard_address=":0")
    with no_workers as cluster, pytest.raises(JobError):
        run_job(replace(job, scheduler=cluster.scheduler_address, wait_for_workers=0.1))
    text = page_of(job).text
    assert "Stopped: try again later." in text and "no worker is connected" in text


def test_a_source_that_hangs_costs_the_pictures_alone(
    tmp_path: Path, job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path / "photos", 3)
    monkeypatch.setattr(pictures_module, "fetch_image", lambda *_: threading.Event().wait())
    monkeypatch.setattr(pictures_module, "SECONDS", 0.1)
    monkeypatch.setattr(pictures_module, "SECONDS_EACH", 0.0)
    assert run_job(job).exit_code == 0
    page = page_of(job)
    assert page.text.count("No picture: its source did not answer in time") == 3
    assert HEADING.format(3, 3) in page.text


@pytest.mark.parametrize("fault", [ValueError("a bug"), KeyboardInterrupt()])
def test_a_run_succeeds_without_its_page(
    tmp_path: Path,
    job: JobConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: BaseException,
) -> None:
    write_photographs(tmp_path / "photos", 3)

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("captioner.jobs.publish.report.write.run_page", fail)
    report = run_job(job)
    assert (report.exit_code, report.captioned) == (0, 3)
    assert "no report.html for this run" in capsys.readouterr().err
    assert not list(Path(job.out).glob("runs/*/report.html"))


def test_rows_that_cannot_be_read_in_time_are_left_out(
    tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path / "photos", 12)
    monkeypatch.setattr("captioner.jobs.publish.report.collect.READ_SECONDS", -1.0)
    run_job(replace(job, checkpoint=calibrated_checkpoint, partition_size=4))
    page = page_of(job)
    assert HEADING.format(12, 12) in page.text
    assert "This counts 4 images of the run" in page.text
    assert pictures(page) == 4


def test_signed_urls_are_shown_without_their_signature(
    tmp_path: Path, job: JobConfig, http_server: HttpServer
) -> None:
    write_photographs(http_server.folder, 2)
    urls = [f"{http_server.url}/{n:03d}.jpg?X-Amz-Signature=hush-hush&x=1" for n in range(3)]
    (tmp_path / "list.csv").write_text("\n".join(["image_uri", *urls]))
    run_job(replace(job, source=tmp_path / "list.csv", allow_host=["127.0.0.1"]))
    (path,) = Path(job.out).glob("runs/*/report.html")
    assert "hush" not in path.read_text()
    page = page_of(job)
    assert f"{http_server.url}/002.jpg" in page.text and pictures(page) == 2


def test_a_run_leaves_its_page_on_a_store(store_job: JobConfig) -> None:
    report = run_job(store_job)
    run = OutFolder(out_path(store_job.out)).runs / report.run_id
    page = Html((run / "report.html").read_text())
    assert HEADING.format(report.captioned, report.images) in page.text
    assert pictures(page) == report.captioned


def test_all_sources_of_a_run_are_named(tmp_path: Path, job: JobConfig) -> None:
    folders = [write_photographs(tmp_path / name, 2) for name in ("a", "b")]
    run_job(replace(job, source=folders))
    assert f"Captioner run of {folders[0]}, {folders[1]}" in page_of(job).text
