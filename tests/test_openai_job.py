"""Jobs whose captioner is a server: budgets, outages, kills, and secrets."""

import base64
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.budget import Prices, Spending
from captioner.errors import CheckpointError
from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.cli.plan_text import preview_text
from captioner.jobs.errors import UsageError
from captioner.jobs.execution import settling
from captioner.jobs.planning.asking import Asking
from captioner.jobs.preview import preview_job
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.openai import asking
from captioner.openai.prompt import expected_tokens
from captioner.schemas.job_report import JobReport
from tests.support.chat import Chat, serving
from tests.support.chat_server import ATTACK
from tests.support.commands import GIVE_UP_SECONDS, command, environment
from tests.support.photographs import write_photographs
from tests.support.servers import S3Server
from tests.support.tables import image_names, read_table, statuses

KEY, PASSWORD = "sk-0123456789-secret", "pa55word"
IN_FLIGHT = 32
PRICES = {"input": 100.0, "output": 1000.0}  # a request costs 0.052


@pytest.fixture
def job(
    tmp_path: Path, scheduler: str, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> Iterator[JobConfig]:
    """Return a job for two running workers, which asks the server; its photographs are missing."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url.replace("http://", f"http://ann:{PASSWORD}@"))
    yield JobConfig(
        source=tmp_path / "photos",
        out=tmp_path / "out",
        checkpoint="openai:any",
        scheduler=scheduler,
        send_secrets=True,
        partition_size=10,
        quiet=True,
    )
    assert_no_secrets(tmp_path / "out")


def assert_no_secrets(out: Path) -> None:
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert KEY.encode() not in content and PASSWORD.encode() not in content, path


def photographs(tmp_path: Path, count: int) -> Path:
    return write_photographs(tmp_path / "photos", count)


def names(count: int) -> list[str]:
    return [f"{number:03d}.jpg" for number in range(count)]


def asked(chat: Chat) -> Counter[str]:
    """How often each image was asked about."""
    return Counter(request["image"] for request in chat.requests())


def kept_answers(out: Path) -> list[Path]:
    return list((out / "answers").iterdir())


def test_every_image_gets_a_row_and_the_report_counts_what_was_spent(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 40)
    report = run_job(replace(job, prices=PRICES))
    assert (report.exit_code, report.captioned, report.requests) == (0, 40, 40)
    assert (report.input_tokens, report.output_tokens) == (16_000, 480)
    assert report.cost == pytest.approx(40 * 0.052)
    assert image_names(tmp_path / "out") == names(40)
    row = read_table(tmp_path / "out").to_pylist()[0]
    assert row["captioner"] == report.captioner
    assert row["captioner"].startswith("openai:any@")
    assert row["confidence"] is None
    assert row["log_prob"] == pytest.approx(sum(row["token_log_probs"]))
    assert "ask" in report.seconds
    assert set(asked(chat).values()) == {1}
    assert not kept_answers(tmp_path / "out")
    (page,) = (tmp_path / "out").glob("runs/*/report.html")
    assert "16,000 tokens sent, 480 received, cost 2.08" in page.read_text()
    assert "Asking the server" in page.read_text()
    assert run_job(job).planned == 0


def test_two_workers_send_no_request_beyond_the_limit(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 60)
    chat.behave("reset", "status 500", latency=0.02)
    report = run_job(replace(job, max_requests=33))
    assert len(chat.requests()) == 33 == report.requests
    assert (report.exit_code, report.stopped) == (0, "the limit is reached: max_requests = 33")
    assert statuses(tmp_path / "out") == {"ok": 31}
    assert report.postponed == 29
    report = run_job(job)
    assert (report.exit_code, report.captioned) == (0, 29)
    assert image_names(tmp_path / "out") == names(60)
    assert max(asked(chat).values()) <= 3


def test_the_cost_stays_below_its_limit_and_the_next_run_does_the_rest(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 60)
    job = replace(job, max_cost=1.5, prices=PRICES)
    report = run_job(job)
    assert report.exit_code == 0
    assert "max_cost = 1.5" in (report.stopped or "")
    assert len(chat.requests()) == report.requests == report.captioned
    assert 1.0 < report.cost <= 1.5
    while report.stopped:
        report = run_job(job)
    assert image_names(tmp_path / "out") == names(60)
    assert len(chat.requests()) == 60


@pytest.mark.parametrize(
    ("images", "faults", "always", "requests"),
    [
        (1, 0, "unsupported max_tokens temperature logprobs", 4),
        (3, 7, "ok", 10),
    ],
)
def test_a_task_that_needs_more_requests_than_usual_gets_them(
    tmp_path: Path,
    job: JobConfig,
    chat: Chat,
    images: int,
    faults: int,
    always: str,
    requests: int,
) -> None:
    photographs(tmp_path, images)
    chat.behave(*["retry-after 0.01"] * faults, always=always)
    report = run_job(replace(job, max_requests=200))
    assert (report.captioned, report.stopped, report.postponed) == (images, None, 0)
    assert requests <= report.requests == len(chat.requests()) <= 3 * requests
    assert image_names(tmp_path / "out") == names(images)


def test_the_cost_is_spent_to_the_end_although_the_server_is_busy(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 30)
    chat.behave(*["retry-after 0.01", "retry-after 0.01", "ok"] * 30)
    report = run_job(replace(job, max_cost=1.0, prices=PRICES))
    expected = Prices(**PRICES).cost(*expected_tokens(job.captioner))
    assert 1.0 - expected < report.cost <= 1.0
    assert report.stopped == "the limit is reached: max_cost = 1"
    assert report.captioned == pytest.approx(report.cost / 0.052)


def test_a_dead_worker_costs_the_budget_little(tmp_path: Path, job: JobConfig, chat: Chat) -> None:
    photographs(tmp_path, 19)
    write_photographs(tmp_path / "photos" / "worse", 1, harm=b"DIE!")
    job = replace(job, max_requests=200, partition_size=200)
    report = run_job(job)
    assert statuses(tmp_path / "out") == {"ok": 19, "crashed": 1}
    assert len(chat.requests()) <= report.requests <= 200
    assert report.stopped is None


def test_a_server_that_is_down_leaves_no_row_and_the_next_run_does_all(
    tmp_path: Path, job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FIRST_SECONDS", 1.0)
    job = replace(job, scheduler=one_worker)
    photographs(tmp_path, 12)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://ann:{PASSWORD}@127.0.0.1:9/v1")
    report = run_job(job)
    assert (report.exit_code, report.images) == (75, 0)
    assert "http://127.0.0.1:9/v1 does not answer" in (report.error or "")
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert run_job(job).captioned == 12
    assert image_names(tmp_path / "out") == names(12)


def test_an_outage_in_the_middle_keeps_what_is_done(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 40)
    chat.behave(*["ok"] * 15, always="retry-after 3600")
    report = run_job(job)
    assert (report.exit_code, report.captioned) == (75, 15)
    assert "asks to wait 3600 s" in (report.error or "")
    assert statuses(tmp_path / "out") == {"ok": 15}
    chat.behave(always="ok")
    assert run_job(job).captioned == 25
    assert image_names(tmp_path / "out") == names(40)


def test_a_refused_key_is_a_usage_error(tmp_path: Path, job: JobConfig, chat: Chat) -> None:
    photographs(tmp_path, 5)
    chat.behave(always="unauthorized")
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        run_job(job)


def test_a_job_whose_captions_all_break_the_house_rules_is_a_usage_error(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 60)
    chat.behave(always="says Visit www.example.com now.")
    with pytest.raises(UsageError, match=r"none of the first 10 answers.*www\.example"):
        run_job(replace(job, partition_size=60))
    assert len(chat.requests()) < 60


@pytest.fixture
def forgetful() -> Iterator[pytest.MonkeyPatch]:
    """Keep runs from removing used answers, as if they were killed just before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "forget_answers", lambda *_: None)
        yield patch


def test_a_run_that_leaves_nothing_removes_the_answers_of_killed_ones(
    tmp_path: Path, job: JobConfig, chat: Chat, forgetful: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path, 12)
    run_job(replace(job, max_requests=5))
    other = replace(job, checkpoint="openai:other", source=photographs(tmp_path / "more", 3))
    run_job(replace(other, max_requests=1))
    assert len(kept_answers(tmp_path / "out")) == 6
    assert run_job(job).captioned == 7
    assert len(kept_answers(tmp_path / "out")) == 1  # of the other captioner
    forgetful.undo()
    assert run_job(other).captioned == 2
    assert not kept_answers(tmp_path / "out")


def test_a_forced_run_asks_even_what_a_killed_one_has_asked(
    tmp_path: Path, job: JobConfig, chat: Chat, forgetful: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path, 12)
    run_job(replace(job, max_requests=5))
    assert len(kept_answers(tmp_path / "out")) == 5
    assert run_job(replace(job, force=True)).requests == 12
    assert not kept_answers(tmp_path / "out")


def test_a_server_that_repeats_the_header_tells_no_secret(
    tmp_path: Path, job: JobConfig, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path, 3)
    monkeypatch.delenv("OPENAI_API_KEY")
    header = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    chat.behave("ok", always=f"status 400 Basic {header}")
    run_job(replace(job, limit=1))
    run_job(job)
    assert statuses(tmp_path / "out") == {"ok": 1, "rejected": 2}
    errors = [row["error"] for row in read_table(tmp_path / "out").to_pylist() if row["error"]]
    assert all("Basic ***" in error and header[:12] not in error for error in errors)


def test_what_is_no_caption_is_a_row_that_says_what_came_back(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 12)
    chat.behave("ok", "refusal", "status 400 <b>too dark</b>", "html", "html", "finish length")
    run_job(replace(job, limit=1))
    chat.behave("refusal", "status 400 <b>too dark</b>", "finish length", f"status 400 {KEY}")
    report = run_job(job)
    assert statuses(tmp_path / "out") == {"ok": 8, "rejected": 4}
    assert report.exit_code == 0
    errors = " ".join(filter(None, read_table(tmp_path / "out")["error"].to_pylist()))
    assert "I cannot help with that" in errors
    assert "too dark" in errors
    assert "***" in errors
    again = run_job(replace(job, retry_failed=["rejected"]))
    assert (again.captioned, again.requests) == (4, 4)


def test_a_text_that_attacks_the_page_does_not_reach_it(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 3)
    chat.behave("attack", "refusal", always=f"status 400 {ATTACK}")
    run_job(job)
    (page,) = (tmp_path / "out").glob("runs/*/report.html")
    assert ATTACK not in page.read_text()
    assert "<img src=x" not in page.read_text()


def test_answers_and_budgets_work_on_a_store(
    tmp_path: Path, job: JobConfig, chat: Chat, s3: S3Server
) -> None:
    photographs(tmp_path, 30)
    options = {"s3": {**s3.options["s3"], "key": "nobody", "secret": "nothing"}}
    job = replace(job, out=s3.bucket({}) + "/out", storage_options=options, send_secrets=True)
    report = run_job(replace(job, max_requests=20))
    assert (report.captioned, len(chat.requests())) == (20, 20)
    assert run_job(job).captioned == 10
    assert set(asked(chat).values()) == {1}
    answers = OutFolder(out_path(str(job.out))).answers
    assert not backend_of(answers).files(answers, "*")


def test_one_image_can_be_captioned_without_a_table(
    tmp_path: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = photographs(tmp_path, 1) / "000.jpg"
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
    chat.behave("says A dog runs on the grass.", always="retry-after 1000")
    line = ["caption", str(photo), "--checkpoint", "openai:any"]
    assert main(line) == 0
    assert capsys.readouterr().out == f"-\tA dog runs on the grass.\t{photo}\n"
    assert main(line) == 75
    assert "asks to wait" in capsys.readouterr().err


def test_the_workers_need_no_torch(tmp_path: Path, chat: Chat) -> None:
    photos = photographs(tmp_path, 6)
    forbidden = tmp_path / "without" / "torch"
    forbidden.mkdir(parents=True)
    (forbidden / "__init__.py").write_text("raise SystemExit('torch was imported')")
    path = os.pathsep.join([str(forbidden.parent), environment()["PYTHONPATH"]])
    done = subprocess.run(
        command("run", photos, "--out", tmp_path / "out", "--checkpoint", "openai:any"),
        env={**environment(), "PYTHONPATH": path, "OPENAI_BASE_URL": chat.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "requests   6 (2,400 tokens sent, 72 received)" in done.stdout
    assert "torch" not in done.stderr
    report = JobReport.from_json(next((tmp_path / "out").glob("runs/*/report.json")).read_text())
    assert (report.captioned, report.workers) == (6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 20, 50, 90])
def test_a_killed_run_asks_again_only_what_was_in_flight(
    tmp_path: Path, job: JobConfig, chat: Chat, done: int
) -> None:
    photos = photographs(tmp_path, 100)
    chat.behave(latency=0.1)
    line = command("run", photos, "--out", tmp_path / "out", "--checkpoint", "openai:any")
    line += ["--partition-size", "25", "--quiet"]
    with subprocess.Popen(line, env=environment(), start_new_session=True) as process:
        end = time.monotonic() + GIVE_UP_SECONDS
        while len(chat.requests()) < done and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
    before = len(chat.requests())
    assert run_job(replace(job, partition_size=25)).exit_code == 0
    assert image_names(tmp_path / "out") == names(100)
    assert done <= before <= len(chat.requests()) <= 100 + IN_FLIGHT
    assert max(asked(chat).values()) <= 2


def test_a_server_gives_second_opinions_about_doubtful_captions_alone(
    tmp_path: Path, job: JobConfig, chat: Chat, calibrated_checkpoint: Path
) -> None:
    photographs(tmp_path, 12)
    run_job(replace(job, checkpoint=calibrated_checkpoint, device="cpu"))
    before = {row["image_uri"]: row for row in read_table(tmp_path / "out").to_pylist()}
    doubtful = {uri for uri, row in before.items() if row["confidence"] < 0.5}
    chat.behave("refusal")
    second = replace(job, redo_below=0.5)
    assert preview_job(second, sample=0).images == len(doubtful)
    report = run_job(second)
    assert len(chat.requests()) == report.requests == len(doubtful) > 2
    rows = {row["image_uri"]: row for row in read_table(tmp_path / "out").to_pylist()}
    new = {uri for uri, row in rows.items() if row["former"]}
    (declined,) = (uri for uri, row in rows.items() if row["declined"])
    assert new | {declined} == doubtful
    assert all(rows[uri]["former"]["caption"] == before[uri]["caption"] for uri in new)
    assert rows[declined]["caption"] == before[declined]["caption"]
    assert run_job(second).requests == 0
    assert not kept_answers(tmp_path / "out")


def test_a_plan_estimates_requests_tokens_cost_and_time_from_four_images(
    tmp_path: Path, job: JobConfig, chat: Chat
) -> None:
    photographs(tmp_path, 40)
    preview = preview_job(replace(job, prices=PRICES))
    assert len(chat.requests()) == 4
    assert preview.asking == Asking(
        images=40,
        requests=40,
        input_tokens=16_000,
        output_tokens=480,
        cost=pytest.approx(40 * 0.052),
        sample=Spending(4, 1600, 48, pytest.approx(4 * 0.052)),
    )
    assert preview.estimate is not None
    assert preview.estimate.images == 4
    text = preview_text(preview)
    assert "about 40 (16,000 tokens sent, 480 received; cost 2.08)" in text
    assert "4 requests sent (1,600 tokens sent, 48 received; cost 0.21)" in text
    assert '"requests": 40' in preview.to_json()
    assert not (tmp_path / "out").exists()


def test_a_plan_without_a_sample_asks_nothing(tmp_path: Path, job: JobConfig, chat: Chat) -> None:
    photographs(tmp_path, 40)
    preview = preview_job(replace(job, prices=PRICES, max_requests=10), sample=0)
    sent, received = expected_tokens(job.captioner)
    assert preview.asking is not None
    assert (preview.asking.images, preview.asking.requests) == (10, 10)
    assert preview.asking.input_tokens == 10 * sent
    assert preview.asking.output_tokens == 10 * received
    assert preview.estimate is None
    assert "within the limits, for 10 images" in preview_text(preview)
    assert not chat.requests()


def test_the_limits_hold_for_a_sample_too(tmp_path: Path, job: JobConfig, chat: Chat) -> None:
    photographs(tmp_path, 40)
    preview = preview_job(replace(job, max_requests=3), sample=36)
    assert len(chat.requests()) <= 3
    assert preview.estimate is not None
    chat.behave(always="status 503")
    preview = preview_job(replace(job, max_requests=2))
    assert preview.problem == "the limit of 2 requests is reached"
    chat.behave(always="retry-after 1000")
    assert "asks to wait" in (preview_job(job).problem or "")
    chat.behave(always="unauthorized")
    with pytest.raises(CheckpointError, match="set OPENAI_API_KEY"):
        preview_job(job)


def test_a_traceback_shows_no_secret(
    tmp_path: Path, chat: Chat, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = photographs(tmp_path, 3)
    url = chat.url.replace("http://", f"http://ann:{PASSWORD}@")
    chat.behave(always=f"status 404 {KEY} {PASSWORD}")
    line = command("run", photos, "--out", tmp_path / "out", "--checkpoint", "openai:any")
    variables = environment(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY)
    done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no model 'any'" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert_no_secrets(tmp_path / "out")
