"""Takes the pictures of the web pages in docs/: `python benchmarks/screenshots.py [ROOT] [STUDY]`.

ROOT holds a finished study with one numeric axis, such as `vae-sweep run beta --root ROOT` makes. Needs chromium and
chromedriver. The pictures are 1280 px wide and of at most 256 colours.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from PIL import Image  # noqa: E402
from support.browser import MISSING, Browser, chromium  # noqa: E402

from experiments.page_links import study_links  # noqa: E402
from experiments.web import web_pages  # noqa: E402

OF_TRAINING = "workflowType=machine_learning"  # the pages of trainings, not those of language models
WIDTH, COLOURS, LARGEST_KB = 1280, 256, 300
SETTLED_S, PATIENCE_S = 1.5, 20.0  # until two pictures of a page in a row are the same


def main() -> None:
    """Start both servers, visit the pages and write the pictures."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    study = sys.argv[2] if len(sys.argv) > 2 else "beta"
    if MISSING:
        sys.exit(f"error: {MISSING}")
    with tempfile.TemporaryDirectory() as profile, web_pages(root) as servers, chromium(Path(profile)) as browser:
        links = dict(study_links(root, *(server.url for server in servers)))
        for name, height in pages(browser, servers[0].url, links, study):
            write(PROJECT / "docs" / f"{name}.png", picture(browser, height))


def pages(browser: Browser, mlflow: str, links: dict[str, str], study: str) -> Iterator[tuple[str, int]]:
    """Bring up one page after another; yield the name of its picture and its height (px)."""
    resize(browser, 900)
    runs_page = links[f"{study} in MLflow"]
    browser.open(runs_page, "matching runs")
    browser.press("Close")  # the assistant, which opens by itself once in each browser
    yield "mlflow_runs", 900
    runs = child_runs(browser, mlflow, runs_page)
    experiment = runs_page.partition("/experiments/")[2].partition("/")[0]
    chosen = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
    browser.open(f"{mlflow}/#/compare-runs?{chosen}&{OF_TRAINING}", "Parallel")
    choose(browser, 0, remove=1, add=())  # the seed
    choose(browser, 1, remove=1, add=("test/kl", "test/active_units", "test/ssim", "test/elbo"))
    yield "mlflow_compare", 700
    browser.open(f"{mlflow}/#/experiments/{experiment}/runs/{runs[0]}?{OF_TRAINING}", "Metrics")
    yield "mlflow_run", 1000
    browser.open(links[f"{study} in Optuna"], "History", "Hyperparameter Importance")
    yield "optuna_dashboard", 1000


def choose(browser: Browser, position: int, *, remove: int, add: tuple[str, ...]) -> None:
    """Take the last words out of a list of chosen ones on the page of compared runs, and choose others."""
    from selenium.webdriver.common.keys import Keys

    field = browser.driver.find_elements("css selector", "input[role=combobox]")[position]
    field.send_keys(*[Keys.BACKSPACE] * remove)
    for word in add:
        field.send_keys(word, Keys.ENTER)
    field.send_keys(Keys.ESCAPE)


def child_runs(browser: Browser, mlflow: str, runs_page: str) -> list[str]:
    """Return the MLflow ids of the study's runs without that of the sweep, in the order of their names."""
    experiment = runs_page.partition("/experiments/")[2].partition("/")[0]
    script = """
        const [url, experiment, done] = arguments;
        fetch(`${url}/ajax-api/2.0/mlflow/runs/search`, {method: 'POST', headers: {'Content-Type': 'application/json'},
            body: JSON.stringify({experiment_ids: [experiment], max_results: 100,
                filter: "tags.`vae_sweep.kind` = 'run'", order_by: ['attributes.run_name ASC']})})
            .then(answer => answer.json()).then(found => done(found.runs.map(run => run.info.run_id)))
    """
    return list(browser.driver.execute_async_script(script, mlflow, experiment))


def resize(browser: Browser, height: int) -> None:
    """Make the visible part of the page `WIDTH` x `height` px."""
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def picture(browser: Browser, height: int) -> Image.Image:
    """Return the page as it looks once it does not change any more."""
    resize(browser, height)
    deadline = time.monotonic() + PATIENCE_S
    before, now = b"", browser.driver.get_screenshot_as_png()
    while before != now and time.monotonic() < deadline:
        time.sleep(SETTLED_S)
        before, now = now, browser.driver.get_screenshot_as_png()
    return Image.open(io.BytesIO(now)).convert("RGB")


def write(path: Path, page: Image.Image) -> None:
    """Write a picture with few colours, and say how large it is."""
    page.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size / 1000
    print(f"{path.relative_to(PROJECT)}: {page.width} x {page.height} px, {size:.0f} kB")
    if size > LARGEST_KB:
        sys.exit(f"error: {path} is larger than {LARGEST_KB} kB")


if __name__ == "__main__":
    main()
