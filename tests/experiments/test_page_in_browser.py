"""The HTML report in a real browser: sorted by click and key, on screens of any size, in the dark, on paper."""

import base64
import re
import zlib

import pytest
from support.browser import MISSING, chromium
from support.study_builder import CONFIG, StudyBuilder

from experiments.ablation import ablation
from experiments.page import render_page

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
SPECTRUM = [3.0, 0.5, 0.02, 0.001]
ELBOS = {0.1: -30.0, 1.0: -10.0, 3.0: -20.0}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the path of the page of three cells; the images they were trained on are gone."""
    folder = tmp_path_factory.mktemp("report")
    config = {**CONFIG, "data": {"source": "folder", "path": str(folder / "nowhere"), "width": 16}}
    builder = StudyBuilder(
        folder / "beta", {"loss.beta": list(ELBOS)}, baseline={"loss.beta": 1.0}, config=config, seeds=(0, 1, 2)
    )
    for beta, elbo in ELBOS.items():
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, elbo=elbo + 0.1 * seed, kl=4 / beta + seed, vectors={"kl_per_dim": SPECTRUM})
    path = folder / "report.html"
    path.write_text(render_page([ablation(builder.study)]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def show(browser, report, width=1280, media="screen", scheme="light"):
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    return browser.open(report.as_uri(), "Methods and caveats")


def names(browser):
    script = "return [...document.querySelector('table').tBodies[0].rows].map(row => row.cells[0].innerText)"
    return [name.split()[0].removeprefix("loss.beta=") for name in browser.driver.execute_script(script)]


def sorted_as(browser, column):
    script = "return document.querySelector('table').tHead.rows[0].cells[arguments[0]].getAttribute('aria-sort')"
    return browser.driver.execute_script(script, column)


def test_a_click_and_a_key_sort_the_table_and_nothing_is_asked_for(browser, report):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.asked()
    browser.requests.clear()
    show(browser, report)
    assert names(browser) == ["0.1", "1.0", "3.0"]

    browser.click("ELBO ↑")
    assert names(browser) == ["1.0", "3.0", "0.1"]
    assert sorted_as(browser, 1) == "descending"

    button = browser.driver.find_elements(By.CSS_SELECTOR, "table thead button")[1]
    button.send_keys(Keys.ENTER)
    assert names(browser) == ["0.1", "3.0", "1.0"]
    assert sorted_as(browser, 1) == "ascending"
    assert "sorted by ELBO, ascending" in browser.driver.execute_script("return document.body.textContent")

    button.send_keys(Keys.SPACE)
    assert names(browser) == ["0.1", "1.0", "3.0"]
    assert sorted_as(browser, 1) is None

    assert {address for _, address in browser.asked()} == {report.as_uri()}
    assert browser.driver.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 768, 400, 320])
def test_only_tables_scroll_sideways(browser, report, width):
    show(browser, report, width)

    page = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert page <= width
    charts = browser.driver.execute_script(
        "return [...document.querySelectorAll('.chart svg')].map(svg => svg.getBoundingClientRect().width)"
    )
    assert charts
    assert all(200 < chart <= width for chart in charts), charts


@pytest.mark.slow
def test_the_first_column_stays_while_the_table_is_scrolled(browser, report):
    show(browser, report, 400)
    left = "return document.querySelector('tbody th').getBoundingClientRect().left"
    before = browser.driver.execute_script(left)
    moved = browser.driver.execute_script(
        "const box = document.querySelector('.scroll'); box.scrollLeft = 300; return box.scrollLeft"
    )
    assert moved > 100
    assert browser.driver.execute_script(left) == before


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_can_be_told_from_the_page(browser, report, scheme):
    """WCAG 2: text 4.5 to 1, lines of charts 3 to 1 (the lightest series of the light scale is allowed 2.4)."""
    show(browser, report, scheme=scheme)
    script = """
        const probe = document.body.appendChild(document.createElement('span'));
        return Object.fromEntries(arguments[0].map(name => {
            probe.style.color = `var(--${name})`;
            return [name, getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(Number)];
        }))
    """
    series = [*(f"q{level}" for level in range(12)), *(f"k{number}" for number in range(7))]
    found = browser.driver.execute_script(script, ["surface", "page", "text", "muted", "accent", "bad", *series])
    for ground in ("surface", "page"):
        for name in ("text", "muted", "accent", "bad"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
    for name in series:
        assert contrast(found[name], found["surface"]) >= 2.4, name


def contrast(first, second):
    """Return the contrast ratio of two sRGB colours (WCAG 2.2, relative luminance)."""

    def luminance(colour):
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
def test_without_scripts_everything_can_be_read(browser, report):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        text = show_without_scripts(browser, report)
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "What does the axis do?" in text
    assert "PCA(AU) MSE" in text
    assert "Learning curves" in text


def show_without_scripts(browser, report):
    from selenium.webdriver.common.by import By

    browser.driver.get("about:blank")
    browser.driver.get(report.as_uri())
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "table thead button")
    return browser.driver.find_element(By.TAG_NAME, "body").text


@pytest.mark.slow
def test_on_paper_details_are_open_and_pages_are_a4(browser, report):
    show(browser, report)
    options = {"preferCSSPageSize": True, "printBackground": True}
    content = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", options)["data"])

    boxes = set(re.findall(rb"/MediaBox ?\[([^\]]*)\]", decompressed(content)))
    assert [round(float(side)) for side in boxes.pop().split()[2:]] == [595, 842]
    assert not boxes

    show(browser, report, media="print")
    shown = browser.driver.execute_script(
        "return [...document.querySelectorAll('details:not(.screen) table')].map(table => table.checkVisibility())"
    )
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown
    assert all(shown)


def decompressed(content):
    """Return a PDF with its compressed parts, where objects may hide, appended in the clear."""
    parts = [content]
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        try:
            parts.append(zlib.decompress(stream))
        except zlib.error:
            continue
    return b"\n".join(parts)
