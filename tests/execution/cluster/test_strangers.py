"""The local cluster and other users of the machine."""

import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
from distributed import LocalCluster

from captioner.jobs import JobConfig
from captioner.jobs.execution.cluster.local import local_workers
from tests.support.commands import environment
from tests.support.strangers import listening_ports


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_reaches_no_port_of_a_run(job: JobConfig) -> None:
    before = listening_ports(psutil.Process())
    unprotected = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with LocalCluster(n_workers=0, **unprotected) as cluster:
        port = int(cluster.scheduler_address.rpartition(":")[2])
        assert f"tcp:{port}" in reached_by_a_stranger([port])
    with local_workers(replace(job, scheduler=None, workers=1, device="cpu"), 1) as client:
        client.wait_for_workers(1)
        ports = [port for port in listening_ports(psutil.Process()) if port not in before]
        assert len(ports) >= 3  # scheduler, nanny, worker
        assert reached_by_a_stranger(ports) == []


def reached_by_a_stranger(ports: list[int]) -> list[str]:
    line = [sys.executable, "-m", "tests.support.strangers", *map(str, ports)]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.split()
