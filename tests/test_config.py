from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captioner.jobs.config.files import load_config
from captioner.jobs.config.job import JobConfig
from captioner.jobs.config.values import bytes_of
from captioner.jobs.errors import UsageError


def config(**values: Any) -> JobConfig:
    return JobConfig(source="photos", out="out", **values)


def job_file(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_flags_win_over_the_job_file(tmp_path: Path) -> None:
    path = job_file(tmp_path, 'source = "a"\nout = "o"\nbeam_size = 5\nbatch_size = 8\n')
    job = load_config({"beam_size": 2, "source": "b"}, path)
    assert (job.source, job.out, job.beam_size, job.batch_size) == ("b", "o", 2, 8)


def test_an_unknown_key_is_an_error_that_names_file_key_and_the_nearest(tmp_path: Path) -> None:
    path = job_file(tmp_path, "beamsize = 5\n")
    with pytest.raises(UsageError, match=r"job\.toml: unknown key 'beamsize'.*'beam_size'"):
        load_config({"source": "a", "out": "o"}, path)


def test_a_wrong_type_in_the_job_file_names_file_and_key(tmp_path: Path) -> None:
    path = job_file(tmp_path, 'batch_size = "many"\n')
    with pytest.raises(UsageError, match=r"job\.toml: batch_size must be .* not 'many'"):
        load_config({"source": "a", "out": "o"}, path)


def test_a_wrong_flag_is_not_blamed_on_the_job_file(tmp_path: Path) -> None:
    path = job_file(tmp_path, "beam_size = 5\n")
    with pytest.raises(UsageError, match=r"^beam_size must be"):
        load_config({"source": "a", "out": "o", "beam_size": 0}, path)


@pytest.mark.parametrize("text", ["= 1", "a = ", "\x00"])
def test_a_job_file_that_is_no_toml_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not valid TOML"):
        load_config({}, job_file(tmp_path, text))


def test_a_missing_job_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.toml"):
        load_config({}, tmp_path / "none.toml")


def test_source_and_out_are_required() -> None:
    with pytest.raises(UsageError, match=r"^--out is missing: give it, or out in a job file"):
        load_config({"source": "a"})


def test_gpus_of_this_machine_have_large_partitions() -> None:
    job = JobConfig("photos", "out", device="cuda")
    assert job.most_in_partition == 5000
    assert replace(job, device="cpu").most_in_partition == 500
    assert replace(job, checkpoint="hf:some/model").most_in_partition == 500
    assert replace(job, scheduler="host:8786").most_in_partition == 500
    assert replace(job, partition_size=40).most_in_partition == 40


@pytest.mark.parametrize(
    "values",
    [
        {"beam_size": 0},
        {"batch_size": 1.5},
        {"max_characters": 19},
        {"max_characters": True},
        {"min_confidence": -0.1},
        {"min_confidence": True},
        {"min_confidence": float("nan")},
        {"target_precision": 1.1},
        {"target_precision": "90%"},
        {"min_confidence": 0.5, "target_precision": 0.9},
        {"partition_size": True},
        {"workers": 0},
        {"device": "tpu"},
        {"scheduler": ""},
        {"checkpoint": ""},
        {"quiet": "no"},
        {"max_bytes": -1},
        {"max_bytes": 20.5},
        {"max_bytes": "0MB"},
        {"max_pixels": 0},
        {"image_timeout": 0},
        {"image_timeout": "60"},
        {"max_failures": "many"},
        {"max_failures": -1},
        {"max_failures": "101%"},
        {"max_failures": True},
        {"limit": 0},
        {"force": 1},
        {"exclude": "*.jpg"},
        {"exclude": [1]},
        {"uri_column": ""},
        {"image_column": 1},
        {"only": ""},
        {"language": "zh-CN"},
        {"language": "ZH"},
        {"language": None},
        {"prompt": " "},
        {"prune": True, "only": "list.txt"},
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(values))} must be"):
        config(**values)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("20MB", 20_000_000),
        ("20 mb", 20_000_000),
        ("1.5GB", 1_500_000_000),
        ("512KiB", 524_288),
        ("1Ti", 2**40),
        ("300k", 300_000),
        ("300B", 300),
        ("1000", 1000),
        (1000, 1000),
        *((wrong, None) for wrong in ("", "MB", "20XB", "-1MB", "1e6", "20 MB of", True, 1.5e30)),
    ],
)
def test_a_size_in_bytes_may_have_a_unit(size: object, count: int | None) -> None:
    assert bytes_of(size) == count


def test_a_size_in_a_job_file_may_have_a_unit(tmp_path: Path) -> None:
    path = job_file(tmp_path, 'source = "a"\nout = "o"\nmax_bytes = "20MB"\n')
    assert load_config({}, path).max_bytes == config(max_bytes="20MB").max_bytes == 20_000_000
    path = job_file(tmp_path, 'source = "a"\nout = "o"\nmax_bytes = "20 megs"\n')
    example = r"job\.toml: max_bytes must be .* such as 20MB or 512KiB, not '20 megs'"
    with pytest.raises(UsageError, match=example):
        load_config({}, path)


def test_a_cluster_has_workers_of_its_own() -> None:
    with pytest.raises(UsageError, match="workers must be omitted if scheduler is given"):
        config(workers=2, scheduler="tcp://host:1")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"retry_failed": ["ok", "odd"]}, "not 'ok', 'odd'"),
        ({"force": "yes"}, "must be true or false, not 'yes'"),
        ({"beam_size": True}, "not true"),
    ],
)
def test_values_that_cannot_be_are_shown_as_people_write_them(
    values: dict[str, Any], shown: str
) -> None:
    with pytest.raises(UsageError, match=f"{shown}$"):
        config(**values)


def test_storage_options_are_tables_by_protocol_and_never_written_down(tmp_path: Path) -> None:
    path = job_file(tmp_path, '[storage_options.s3]\nkey = "hush-hush"\n[storage_options.gs]\n')
    job = load_config({"source": "s3://a", "out": "o"}, path)
    assert job.storage_options == {"s3": {"key": "hush-hush"}, "gs": {}}
    assert "storage_options" not in job.to_toml()
    assert "hush" not in f"{job!r} {job} {job.resolved().to_toml()}"


@pytest.mark.parametrize(
    "options", ['"hush"', "1", '{s3 = "hush"}', "[{s3 = {}}]", "{s3.at = 07:32:00}"]
)
def test_storage_options_that_cannot_be_are_refused_without_their_values(
    tmp_path: Path, options: str
) -> None:
    path = job_file(tmp_path, f"storage_options = {options}\n")
    with pytest.raises(UsageError, match=r"job\.toml: storage_options must be a table") as caught:
        load_config({"source": "s3://a", "out": "o"}, path)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "of_200"),
    [
        (None, None),
        ("10", 10),
        (10, 10),
        (0, 0),
        ("5%", 10),
        (0.05, 10),
        ("0.05", 10),
        ("100%", 200),
        ("29%", 58),
        (0.57, 114),
    ],
)
def test_max_failures_is_a_count_or_a_share(limit: Any, of_200: int | None) -> None:
    assert config(max_failures=limit).failure_limit(200) == of_200


def test_a_resolved_job_reads_back_as_the_same_job(tmp_path: Path) -> None:
    job = JobConfig('a "b"\\c\x7fé\n', "out", max_failures="5%", workers=3, quiet=True)
    job = replace(job, max_characters=60, target_precision=0.9)
    assert load_config({}, job_file(tmp_path, job.to_toml())) == job


def test_a_job_with_several_sources_reads_back_as_the_same_job(tmp_path: Path) -> None:
    sources = [tmp_path / "a", "s3://bucket/b", "-"]
    job = JobConfig(sources, tmp_path / "out", exclude=["raw", ""], only="list", limit=5)
    assert job.sources == sources
    resolved = job.resolved()
    assert resolved.source == [f"{tmp_path}/a", "s3://bucket/b", "-"]
    assert resolved.only == str(Path.cwd() / "list")
    read = load_config({}, job_file(tmp_path, resolved.to_toml()))
    assert read == replace(resolved, out=str(tmp_path / "out"))
    assert JobConfig(["a"], "out").resolved().source == str(Path.cwd() / "a")


@pytest.mark.parametrize("source", [[], ["a", ""], ["a", 1], 1])
def test_sources_that_cannot_be_are_refused(source: Any) -> None:
    with pytest.raises(UsageError, match=r"^source must be a path"):
        JobConfig(source, "out")


@pytest.mark.parametrize(("source", "only"), [(["-", "-"], None), ("-", "-")])
def test_standard_input_is_read_once_only(source: Any, only: str | None) -> None:
    with pytest.raises(UsageError, match="standard input can be read once only"):
        JobConfig(source, "out", only=only)


@pytest.mark.parametrize(
    ("source", "protocol"),
    [
        ("ftp://ann:hush-hush@host/photos", "ftp"),
        ("HTTPS://ann:hush@hush-hush@host:8080/list.csv", "https"),
        ("zip://**::sftp://:hush-hush@host/x.zip", "sftp"),
        ("https://hush-hush@host/list.csv", "https"),
        ("tar://**::http://hush-hush@host?x=1", "http"),
    ],
)
def test_a_password_in_the_source_is_refused_and_not_repeated(source: str, protocol: str) -> None:
    for sources in (source, ["", source]):
        with pytest.raises(UsageError, match=rf"\[storage_options\.{protocol}\]") as caught:
            load_config({"source": sources, "out": "x"})
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "https://host:8080/a:b@c.jpg",
        "https://host?mail=a:b@c",
        "sftp://me@host/photos",
        "abfs://photos@account.dfs.core.windows.net/a",
        "zip://10:30@home.jpg::/x.zip",
        "s3://bucket/a:b@c/*.jpg",
        "/photos/a:b@c/",
    ],
)
def test_a_source_without_password_is_not_taken_for_one(source: str) -> None:
    assert load_config({"source": source, "out": "x"}).source == source


@pytest.mark.parametrize(
    "host", ["https://h/", "h:99999", "h:x", "me@h", "", "'h'", "file://x", "[::1"]
)
def test_a_host_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match=r"^allow_host must be a list of hosts"):
        JobConfig("photos", "out", allow_host=[host])


def test_hosts_and_buckets_may_be_allowed() -> None:
    hosts = ["NAS", "h:8080", "[::1]:80", "[fd00::1]", "münchen.de", "s3://b", "az://c@d/"]
    rules = JobConfig("photos", "out", allow_host=hosts).access_rules
    assert rules.hosts == {
        *("nas", "h:8080", "[::1]:80", "[fd00::1]", "xn--mnchen-3ya.de", "s3://b", "az://c@d")
    }


def test_a_plain_run_tries_images_again_that_lacked_memory() -> None:
    job = JobConfig("photos", "out")
    assert job.retried == {"out_of_memory"}
    assert replace(job, retry_failed=["timeout"]).retried == {"out_of_memory", "timeout"}
    assert "crashed" in replace(job, retry_failed=[]).retried
    assert not replace(job, redo_below=0.5).retried
