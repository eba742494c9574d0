"""How fast the captioner is: its steps, the whole job, its start, and other captioners beside it.

    python tests/benchmarks/speed.py [--images DIR] [--limit 256] [--rounds 5] [--json FILE]
        [--only steps,job,start,peers] [--precision float32] [--device cuda] [--cores 1 2]

What is compared is measured in turn, in every round: A, B, C, A, B, C. The tables have medians, the
lowest and the highest value. Without `--images`, photographs are generated; large ones always are.

`steps` measures each step alone on one core, and Pillow's usual `convert` and `resize` beside
decoding. Two limits of the job follow. *Steps*: cores over the sum of each step's best time; with
GPUs, on which the network runs while the cores do the rest, the slower of both. *Machine*: the rate
of a large matrix product in the captioner's precision, on all cores or GPUs, over the multiply-adds
of the model. `job` runs `captioner run`, with a worker for each core: `whole` counts from the start
of the command to its end; `steady` begins when each worker has committed one part, about. Its
stages are milliseconds of a worker, as the run reports them. `start` runs commands that have little
to do. `peers` captions the same files with other captioners, all of them on one core or GPU.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from captioner.options import PRECISIONS
from tests.support.speed.figures import Table
from tests.support.speed.job import Limits, job_rows, jobs_of, run_jobs
from tests.support.speed.limits import measure_alone
from tests.support.speed.peers import time_peers
from tests.support.speed.photographs import Photographs, large_photographs, small_photographs
from tests.support.speed.report import print_machine, print_table, write_json
from tests.support.speed.starts import time_starts
from tests.support.speed.subject import Subject, core_count, describe_machine, load_of_machine

PARTS = ("steps", "job", "start", "peers")
PEERS_NOTE = "\n(1) Trained, they would write better captions: compare their speed only."


def main() -> None:
    """Measure the parts that are wanted, and print each as soon as it is done."""
    options = _options()
    subject = Subject(options.checkpoint, options.device, options.precision)
    load, tables = load_of_machine(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = small_photographs(options.images, options.limit, folder)
        for table in _measured(options, subject, sets, folder):
            print_table(table)
            tables.append(table)
    if "peers" in options.only:
        print(PEERS_NOTE)
    loads = {"load before": load, "load after": load_of_machine()}
    machine = describe_machine(subject) | loads
    print_machine(machine)
    if options.json:
        write_json(options.json, machine, tables)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = core_count()
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs to take")
    parser.add_argument("--limit", type=int, default=256, help="images of a job (256)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--only", type=_parts, default=PARTS, help=f"some of {','.join(PARTS)}")
    parser.add_argument("--cores", type=int, nargs="+", default=[cores], help="of each job (all)")
    parser.add_argument("--captioned", type=int, default=100, help="beside 10 new images (100)")
    parser.add_argument("--checkpoint", default="flickr8k")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}")
    return parts


def _measured(
    options: argparse.Namespace, subject: Subject, sets: Photographs, folder: Path
) -> Iterator[Table]:
    rounds, only = options.rounds, options.only
    limits: Limits = defaultdict(dict)
    if "steps" in only:
        alone = measure_alone(subject, {**sets, **large_photographs(folder)}, rounds)
        limits = {job: alone.limits(job, subject.gpus) for job in jobs_of(sets, options.cores)}
        yield from alone.tables(limits)
    if "job" in only:
        yield Table("job", job_rows(run_jobs(subject, sets, options.cores, rounds), limits))
    first = next(iter(sets.values()))
    if "start" in only:
        rows = time_starts(subject, first, options.captioned, rounds, folder / "nightly")
        yield Table("start, whole commands", rows)
    if "peers" in only:
        yield Table("from files to captions, on one core", time_peers(subject, first, rounds))


if __name__ == "__main__":
    main()
