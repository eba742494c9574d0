"""What a manifest may name: it is input, and not trusted."""

from pathlib import Path

import pytest

from captioner.jobs.sources.manifests.access import keys_and_access

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


def test_an_image_by_a_signed_url_is_fetched_by_it_and_named_without_its_signature() -> None:
    url = "https://h/a.jpg?id=1&sig=secret&se=2026"
    assert keys_and_access([url, "https://h/b.jpg"], str(Path("/lists"))) == (
        ["https://h/a.jpg?id=1", "https://h/b.jpg"],
        [{"url": url, "refused": None}, None],
    )
