"""How fast the review is with a large table: from a key to the next picture, and to start.

    python tests/benchmarks/review.py --rows 1000000 --files 2000

It makes a table of invented captions, starts `captioner review` and drives it in the Chromium on
the PATH. The pictures that are shown are JPEGs of 12 megapixels.
"""

import argparse
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.commands import start  # noqa: E402
from tests.support.photographs import photograph  # noqa: E402
from tests.support.rows import row, write_rows  # noqa: E402

SIZE = (4000, 3000)  # pixels
KEYS = "ard1s"  # accept, reject, decorative, choose, skip
MEASURE = """() => {
  window.taken = [];
  let pressed = null;
  document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (!document.getElementById("frame").dataset.item || pressed === null) return;
    const since = pressed;
    pressed = null;
    requestAnimationFrame(() => requestAnimationFrame(
      () => window.taken.push(performance.now() - since)));
  }).observe(document.getElementById("frame"), { attributeFilter: ["data-item"] });
}"""


def main() -> None:
    """Make a table, review some of it, and print times and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--decisions", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds to look at a picture")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_table(Path(folder), options.rows, options.files, shown=2 * options.decisions + 20)
        began: float | None = time.perf_counter()
        with start("review", Path(folder) / "out", "--no-browser") as command:
            try:
                assert command.stdout
                url = re.findall(r"http://\S+", command.stdout.readline())[0]
                print(f"start: the server listens after {time.perf_counter() - (began or 0):.1f} s")
                for pause in (options.pause, 0):
                    report(pause, review(url, options.decisions, pause, began))
                    began = None  # later pages find the queue ready
                now, most = (memory(command.pid, name) for name in ("VmRSS", "VmHWM"))
                print(f"memory of the server: {now} MiB, at most {most} MiB")
            finally:
                command.send_signal(signal.SIGINT)


def make_table(folder: Path, rows: int, files: int, shown: int) -> None:
    """Write a table in which the images of the `shown` least certain captions exist."""
    picture = folder / "picture.jpg"
    Image.open(Path(shutil.copyfile(write(folder), picture))).resize(SIZE).save(picture, quality=90)
    for number in range(shown):
        (folder / f"{number:07}.jpg").hardlink_to(picture)
    alternatives = [{"caption": f"A man in a red hat {n}.", "log_prob": -5.0} for n in range(3)]
    values = {"alternatives": alternatives, "token_log_probs": [-0.5] * 8, "needs_review": True}
    caption = "A man in a blue shirt is standing."
    one = row("x", caption=caption, **values)
    write_rows(folder / "out", [one])
    (template,) = (folder / "out" / "captions").iterdir()
    ranks = np.random.default_rng(1).permutation(rows)
    for number, part in enumerate(np.array_split(ranks, files)):
        write_part(template, folder, part, template.with_name(f"part-{number:05}.parquet"))
    template.unlink()


def write(folder: Path) -> Path:
    path = folder / "photograph.jpg"
    path.write_bytes(photograph(1))
    return path


def write_part(template: Path, folder: Path, ranks: np.ndarray, path: Path) -> None:
    """Write a file of rows whose place in the review is known."""
    table = pq.read_table(template)
    table = pa.concat_tables([table] * len(ranks)).combine_chunks()
    columns = {
        "image_uri": pa.array([f"{folder}/{rank:07}.jpg" for rank in ranks]),
        "image_sha256": pa.array([f"{rank:064x}" for rank in ranks]),
        "confidence": pa.array(ranks / 1e7, pa.float32()),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), values)
    pq.write_table(table, path, compression="zstd", row_group_size=10_000)


def review(url: str, decisions: int, pause: float, began: float | None) -> list[float]:
    """Decide by keyboard; return the milliseconds of each step."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        page.goto(url)
        page.wait_for_selector("#frame img", timeout=600_000)
        if began is not None:
            print(f"start: the first picture is shown after {time.perf_counter() - began:.1f} s")
        page.evaluate(MEASURE)
        for number in range(decisions):
            time.sleep(pause)
            page.keyboard.press(KEYS[number % len(KEYS)])
            page.wait_for_function(f"window.taken.length === {number + 1}", timeout=60_000)
        taken: list[float] = page.evaluate("window.taken")
        browser.close()
    return taken


def report(pause: float, taken: list[float]) -> None:
    worst = sorted(taken)[int(len(taken) * 0.95)]
    how = f"after {pause} s of looking" if pause else "as fast as pictures come"
    print(
        f"key to next picture, {how}: median {statistics.median(taken):.0f} ms, "
        f"95% within {worst:.0f} ms, at most {max(taken):.0f} ms"
    )


def memory(pid: int, name: str) -> int:
    """Return a number of /proc/PID/status in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[0]) // 1024


if __name__ == "__main__":
    main()
