"""What a manifest may name: it is input, and not trusted."""

from pathlib import Path

import pytest

from captioner.jobs.config.job import JobConfig
from captioner.jobs.sources.manifests.access import keys_and_access
from captioner.jobs.storage.http.access import NO_EXCEPTIONS, set_access_rules

REMOTE = "https://host/lists"


@pytest.mark.parametrize(
    "uri", ["/etc/passwd", "file:///etc/passwd", "zip://a.jpg::/srv/x.zip", "tar://a::file:///x"]
)
def test_a_list_from_elsewhere_names_no_file_of_this_machine(uri: str) -> None:
    _, (access,) = keys_and_access([uri], REMOTE)
    assert access and "may not name files of this machine" in str(access["refused"])
    assert keys_and_access([uri], "/lists") == ([uri], [None])


@pytest.mark.parametrize(
    "protocol", ["local", "sftp", "ftp", "github", "memory", "dask", "reference", "smb", "hdfs"]
)
def test_a_list_names_no_protocol_that_the_job_does_not_use(protocol: str) -> None:
    for uri in (f"{protocol}://x/a.jpg", f"zip://a.jpg::{protocol}://x/a.zip"):
        _, (access,) = keys_and_access([uri], "/lists")
        assert access and protocol in str(access["refused"])
        assert keys_and_access([uri], f"{protocol}://x")[1] == [None]


@pytest.mark.parametrize(
    "uri",
    ["s3://private/a.jpg", "S3A://private/a.jpg", "tar://a.jpg::s3://private/x.tar"],
)
def test_a_list_by_http_names_objects_only_of_buckets_that_the_job_names(uri: str) -> None:
    for folder in (REMOTE, f"zip://lists::{REMOTE}/x.zip"):
        _, (access,) = keys_and_access([uri], folder)
        assert access and str(access["refused"]).endswith("--allow-host s3://private")
    for folder in ("/lists", "s3://private/lists", "s3://other/lists"):
        assert keys_and_access([uri], folder)[1] == [None]
    list_of = f"{REMOTE}/list.csv"
    for job in (
        JobConfig(list_of, "out", allow_host=["s3://private"]),
        JobConfig(list_of, "out", allow_private=True),
        JobConfig([list_of, "s3://private/photos"], "out"),
    ):
        set_access_rules(job.access_rules)
        assert keys_and_access([uri], REMOTE)[1] == [None]
        _, (access,) = keys_and_access(["gs://other/a.jpg"], REMOTE)
        assert job.allow_private or (access and access["refused"])
    set_access_rules(NO_EXCEPTIONS)


def test_an_image_by_a_signed_url_is_fetched_by_it_and_named_without_its_signature() -> None:
    url = "https://h/a.jpg?id=1&sig=secret&se=2026"
    assert keys_and_access([url, "https://h/b.jpg"], str(Path("/lists"))) == (
        ["https://h/a.jpg?id=1", "https://h/b.jpg"],
        [{"url": url, "refused": None}, None],
    )
