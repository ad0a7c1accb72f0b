"""The HTML report: what it says and shows, that it is one safe file, and what it leaves out."""

import base64
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.html import parse, table_of
from support.study_builder import CONFIG, FINGERPRINT, StudyBuilder, beta_study

from experiments.ablation import ablation
from experiments.page import render_page
from experiments.page.curves import kl_spectra, learning_curves
from experiments.page.histories import read_curves
from experiments.page.metrics import metric_charts, shortened
from experiments.page.parts import FigureGroup, LeftOut, shown_series
from experiments.page.pictures import contact_sheets
from experiments.page.planes import pareto, rate_distortion
from experiments.page.space import importance, parallel_coordinates
from experiments.page.svg import INK, inline_svg, new_axes, page_style, sequential
from experiments.page.tables import collapse_map, difference_rows, result_rows, shaded_matrices
from experiments.reconstructions import gallery, weights_file
from tracking.run_directory import StudyDirectory
from vae_core.config import parse_config
from vae_core.data import prepare
from vae_core.models.vae import build_model

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac{'
WHITE, BLACK = 20.0, -20.0  # logits


def without_data(tmp_path):
    """Return a config whose images are nowhere, so that no pictures are drawn."""
    return {**CONFIG, "data": {"source": "folder", "path": str(tmp_path / "nowhere"), "width": 16}}


def grid(tmp_path, value, betas=(0.1, 0.3, 1.0, 3.0), dims=(2, 4, 8), **options):
    """Return the table of a study of two axes; `value(beta, dim)` is the ELBO of its only seed."""
    space = {"loss.beta": list(betas), "model.latent_dim": list(dims)}
    builder = StudyBuilder(tmp_path / "grid", space, seeds=(0,), config=without_data(tmp_path), **options)
    for beta in betas:
        for dim in dims:
            builder.done(builder.cell(loss__beta=beta, model__latent_dim=dim)[0], elbo=value(beta, dim))
    return ablation(builder.study)


def with_weights(builder, run, logit, **metrics):
    """Give a run selected weights whose decoder draws a constant."""
    model = build_model(parse_config(builder.config, "test").model, 1, 0, "cpu")
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.nn.init.constant_(model.decoder.head.bias, logit)
    builder.done(run, artifacts={"best.pt": "artifacts/best.pt"}, **metrics)
    torch.save(model.state_dict(), builder.study.run(run).attempt(0).artifacts / "best.pt")


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Three cells, two seeds: one draws white, one black, and of one a run failed and one was pruned."""
    dataset = prepare(parse_config(CONFIG, "test").data)
    builder = StudyBuilder(
        tmp_path_factory.mktemp("page") / "paint",
        {"loss.beta": [0.5, 1.0, 2.0]},
        baseline={"loss.beta": 1.0},
        fingerprint=dataset.fingerprint,
    )
    for beta, logit, kl in ((0.5, WHITE, 8.0), (1.0, BLACK, 4.0)):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            spectrum = [3.0 + seed, 0.01, 1.0 + seed, 0.2]
            with_weights(builder, run, logit, kl=kl + seed, elbo=-10 - beta - seed, vectors={"kl_per_dim": spectrum})
    first, second = builder.cell(loss__beta=2.0)
    builder.failed(first, reason=f"val/elbo is nan {HOSTILE}")
    builder.pruned(second)
    return builder.study, dataset


@pytest.fixture(scope="module")
def page(painted):
    return render_page([ablation(painted[0])])


@pytest.fixture(scope="module")
def root(page):
    return parse(page)


def test_the_page_is_one_well_formed_file_that_asks_for_nothing_else(page, root):
    assert root.one("html").attributes["lang"] == "en"
    for element in root.all():
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            address = element.attributes.get(name, "#")
            assert address.startswith(("#", "data:")), (element.tag, address)
    for address in re.findall(r"url\(([^)]*)\)", page):
        assert address.startswith("#")
    assert "@import" not in page
    assert len(page) < 1_000_000


def test_every_id_is_given_once_and_every_reference_has_its_target(page, root):
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    named = {element.attributes["href"][1:] for element in root.all() if element.attributes.get("href", "")[:1] == "#"}
    named |= set(re.findall(r"url\(#([^)]*)\)", page))
    named |= {element.attributes.get("aria-labelledby", ids[0]) for element in root.all()}
    assert named <= set(ids)


def test_question_answer_and_every_number_of_the_table_are_there(painted, root):
    found = ablation(painted[0])

    assert root.one("h1").text == "What does the axis do?"
    assert root.one(class_="answer").text == found.answers[0]
    head, *rows = table_of(root.all("table")[0])
    for row, texts in zip(found.rows, rows, strict=True):
        assert texts[0].startswith(row.name)
        numbers = [row.entries[column.key].text.replace("-", "−") for column in found.columns]
        assert texts[1:] == [*numbers, row.verdict, row.seeds]
    assert head[1] == "ELBO ↑nats per image"


def test_the_table_marks_the_baseline_and_shows_runs_that_failed_or_were_pruned(root):
    rows = {row.all("th")[0].text: row for row in root.all("table")[0].all("tr")[1:]}
    assert "baseline" in rows["loss.beta=1.0 baseline"].attributes["class"].split()
    assert any("1 failed" in name and "1 pruned" in name for name in rows), list(rows)
    runs = table_of(root.all("table")[-1])
    assert [row[2] for row in runs[1:]] == ["done"] * 4 + ["failed", "pruned"]
    assert HOSTILE in runs[5][-1]


def test_sort_keys_are_the_means(painted, root):
    found = ablation(painted[0])
    rows = root.all("table")[0].all("tbody")[0].all("tr")
    for row, shown in zip(found.cells, rows, strict=True):
        keys = [cell.attributes["data-sort"] for cell in shown.all("td")[: len(found.columns)]]
        means = [row.entries[column.key].mean for column in found.columns]
        assert [float(key) if key else None for key in keys] == means


def test_charts_name_what_they_show_and_have_units_on_their_axes(root):
    charts = [figure.one("svg") for figure in root.all("figure", class_="chart")]
    assert len(charts) >= 8
    for chart in charts:
        assert chart.attributes["role"] == "img"
        assert len(chart.attributes["aria-label"]) > 20
    plane = next(chart for chart in charts if "distortion" in chart.attributes["aria-label"])
    assert "rate R: KL, nats per image" in plane.text
    assert "distortion D: −ln p(x|z), nats per image" in plane.text


def test_what_does_not_apply_is_named_with_its_reason(root):
    sentences = [item.text for item in root.all("li")]
    assert "Parameter importance: there is one axis only." in sentences
    assert "Parallel coordinates: there is one axis only." in sentences
    assert any(sentence.startswith("Pareto front") for sentence in sentences)


def test_equal_studies_give_equal_pages_and_no_global_state_is_touched(painted, page):
    import matplotlib as mpl

    before = dict(mpl.rcParams), torch.random.get_rng_state()
    assert render_page([ablation(painted[0])]) == page
    assert dict(mpl.rcParams) == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_texts_from_outside_stay_texts(tmp_path):
    builder = StudyBuilder(tmp_path / "hostile", {"model.block": [HOSTILE, "plain"]}, config=without_data(tmp_path))
    for block in (HOSTILE, "plain"):
        for run in builder.cell(model__block=block):
            builder.done(run, verdict=HOSTILE)
    found = ablation(builder.study)
    found = replace(found, results=replace(found.results, question=HOSTILE), answers=(HOSTILE,))

    root = parse(render_page([found]))

    assert len(root.all("script")) == 1
    assert "alert" not in root.one("script").text
    assert root.all("img") == []
    assert not [element for element in root.all() if any(name.startswith("on") for name in element.attributes)]
    assert root.one("h1").text == HOSTILE
    assert root.one("title").text.endswith(HOSTILE)
    assert any(HOSTILE[:10] in chart.text for chart in root.all("svg")), "the chart's tick is the cell's name"


def test_several_studies_have_a_table_of_contents(tmp_path):
    names = ["first study", "second"]
    tables = []
    for name in names:
        builder = StudyBuilder(tmp_path / name, {"loss.beta": [1.0]}, config=without_data(tmp_path))
        builder.cell(loss__beta=1.0)
        tables.append(ablation(builder.study))

    root = parse(render_page(tables))

    links = root.all("nav")[0].all("a")
    assert [link.text for link in links] == names
    targets = [study.attributes["id"] for study in root.all("article")]
    assert [link.attributes["href"] for link in links] == [f"#{target}" for target in targets]
    assert root.all(class_="answer")[0].text == "No run has finished yet: there is no answer."
    assert root.all("figure") == []


def test_pictures_are_what_the_weights_draw_of_the_same_images(painted):
    study, _ = painted
    found = ablation(study)

    sheets, left_out = contact_sheets(found, shown_series(found))

    assert left_out == []
    assert [sheet.title for sheet in sheets] == ["Reconstructions", "Samples from the prior", "Interpolations"]
    targets, white, black = (pixels(strip) for strip in sheets[0].strips)
    expected = gallery(study, found.results, ["a", "b"], 8).rows[0].pictures
    pitch = (targets.shape[1] + 1) // len(expected)  # a picture is 16 px wide, a gap 1 px
    for place, picture in enumerate(expected):
        height, width = picture.shape[1:]
        shown = targets[:height, place * pitch : place * pitch + width, 0]
        np.testing.assert_array_equal(shown, np.rint(255 * picture[0]))
    assert white[white[..., 3] == 255][:, :3].min() == 255
    assert black[black[..., 3] == 255][:, :3].max() == 0
    ends = pixels(sheets[2].strips[0])
    assert not ends[:, ends.shape[1] // 2, 3].any(), "between the two test images is nothing"


def pixels(strip):
    head, _, content = strip.source.partition(",")
    assert head == "data:image/webp;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))
    assert (strip.height, strip.width) == found.shape[:2]
    return found


def test_weights_that_cannot_be_read_leave_a_gap_with_the_reason(painted, tmp_path):
    shutil.copytree(painted[0].path, tmp_path / "study")
    found = ablation(StudyDirectory(tmp_path / "study"))
    shown = shown_series(found)
    spoiled, missing = (weights_file(found.study, series.cell.done[0]) for series in shown)
    spoiled.write_bytes(spoiled.read_bytes()[:1000])

    [sheet, *_], _ = contact_sheets(found, shown)
    assert [strip.why for strip in sheet.strips] == ["", "best.pt cannot be used here (RuntimeError)", ""]

    missing.unlink()
    [sheet], left_out = contact_sheets(found, shown)
    assert sheet.strips[2].why == "best.pt cannot be used here (FileNotFoundError)"
    assert [one.title for one in left_out] == ["Samples from the prior", "Interpolations"]

    spoiled.unlink()
    sheets, left_out = contact_sheets(found, shown)
    assert sheets == []
    assert {one.why for one in left_out} == {"the selected weights are not here"}


def test_a_study_whose_images_are_gone_says_so(tmp_path):
    builder = beta_study(tmp_path / "study", config=without_data(tmp_path))
    found = ablation(builder.study)
    shown = shown_series(found)
    run = shown[0].cell.done[0]
    weights = found.study.run(run.run).attempt(run.attempt).path / run.artifacts.setdefault("best.pt", "best.pt")
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.touch()

    sheets, left_out = contact_sheets(found, shown)

    assert sheets == []
    assert len(left_out) == 3
    assert "nowhere" in left_out[0].why


def test_learning_curves_give_means_and_ranges_over_seeds(painted):
    found = ablation(painted[0])

    group = learning_curves(read_curves(found.study, shown_series(found)), "x", same_elbo=True, note="")

    assert [panel.title for panel in group.panels] == ["ELBO (val)", "SSIM (val)"]
    assert ("beta = 0.5", "ELBO (val)", "-29 (epoch 1)", "-28 (epoch 2)", "-28 to -28") in group.numbers.rows
    without = learning_curves(read_curves(found.study, shown_series(found)), "x", same_elbo=False, note="")
    assert [panel.title for panel in without.panels] == ["SSIM (val)"]


def test_spectra_are_medians_over_seeds_of_sorted_dimensions(painted):
    found = ablation(painted[0])

    group = kl_spectra(read_curves(found.study, shown_series(found)), "x", "")

    # seeds: 3, 1, 0.2, 0.01 and 4, 2, 0.2, 0.01
    assert group.numbers.rows[0] == ("beta = 0.5", "3", "5.21", "3.5, 1.5, 0.2, 0.01")


def test_metrics_against_an_axis_or_by_cell(painted, tmp_path):
    group = metric_charts(ablation(painted[0]), "x", same_elbo=True)
    assert group.title == "Metrics against loss.beta"
    assert [panel.title for panel in group.panels] == ["ELBO ↑", "reconstruction ↓", "KL", "SSIM ↑", "MSE ↓", "AU"]

    group = metric_charts(grid(tmp_path, lambda beta, _: -beta), "x", same_elbo=False)
    assert group.title == "Metrics by cell"
    assert "ELBO ↑" not in [panel.title for panel in group.panels]
    assert "beta = 0.1, latent_dim = 2" in group.panels[0].svg


def test_the_plane_names_the_cells_that_no_other_one_beats(tmp_path):
    builder = StudyBuilder(tmp_path / "rd", {"loss.beta": [1.0, 2.0, 3.0]}, seeds=(0,), config=without_data(tmp_path))
    for beta, rate, distortion in ((1.0, 9.0, 10.0), (2.0, 5.0, 15.0), (3.0, 6.0, 16.0)):
        builder.done(builder.cell(loss__beta=beta)[0], kl=rate, reconstruction=distortion)
    found = ablation(builder.study)

    group = rate_distortion(found, "x", same_elbo=True)

    assert group.lead.endswith("without losing in the other: beta = 2; beta = 1.")
    assert group.numbers.rows[0] == ("beta = 1", "9", "10", "-19")
    assert isinstance(rate_distortion(found, "x", same_elbo=False), LeftOut)


def test_the_front_of_quality_and_size_where_models_differ(tmp_path):
    builder = StudyBuilder(
        tmp_path / "size", {"model.latent_dim": [2, 4, 8]}, seeds=(0,), config=without_data(tmp_path)
    )
    for dim, size, elbo in ((2, 1000, -30.0), (4, 2000, -35.0), (8, 4000, -20.0)):
        builder.done(builder.cell(model__latent_dim=dim)[0], parameters=size, elbo=elbo)

    group = pareto(ablation(builder.study), "x", same_elbo=True)

    assert group.lead.endswith("latent_dim = 2; latent_dim = 8.")
    assert isinstance(pareto(ablation(beta_study(tmp_path / "b").study), "x", same_elbo=True), LeftOut)


def drawn_importance(found, *, same_elbo=True):
    with importance(found, "x", same_elbo=same_elbo) as draw:
        return draw()


@pytest.mark.parametrize("cores", [1, 2])
def test_importance_finds_the_axis_that_matters(tmp_path, monkeypatch, cores):
    import optuna

    verbosity = optuna.logging.get_verbosity()
    monkeypatch.setattr("experiments.page.space.usable_cores", lambda: cores)
    if cores > 1:
        monkeypatch.setattr(optuna, "create_study", None)  # of this process
    found = grid(tmp_path, lambda beta, dim: -abs(np.log(beta)) + 0.001 * dim)

    group = drawn_importance(found)

    shares = dict(re.findall(r"(loss\.beta|model\.latent_dim): (\d+)%", group.panels[0].svg))
    assert int(shares["loss.beta"]) > 75
    assert sum(map(int, shares.values())) in (99, 100, 101)
    assert optuna.logging.get_verbosity() == verbosity


def test_importance_needs_cells_and_differences(tmp_path):
    few = drawn_importance(grid(tmp_path, lambda beta, _: beta, betas=(1.0, 2.0)))
    assert few == LeftOut("Parameter importance", "6 cells have a result, and the estimate needs 10")
    constant = drawn_importance(grid(tmp_path / "constant", lambda *_: 1.0))
    assert constant.why == "the metric is the same in every cell"


def test_parallel_coordinates_list_the_best_cells(tmp_path):
    group = parallel_coordinates(grid(tmp_path, lambda beta, dim: -beta * dim), "x", same_elbo=True)

    assert group.numbers.rows[:2] == (("beta = 0.1, latent_dim = 2", "-0.2"), ("beta = 0.1, latent_dim = 4", "-0.4"))
    assert "latent_dim" in group.panels[0].svg


def test_matrices_are_shaded_towards_the_better_values(tmp_path):
    [elbo, *_] = shaded_matrices(grid(tmp_path, lambda beta, dim: -beta * dim))

    assert elbo.matrix.column.key == "test/elbo"
    shades = [[place.shade for place in places] for _, places in elbo.rows]
    assert max(shades[0]) == shades[0][0] == 34
    assert shades[-1][-1] == 0
    assert shades[0] == sorted(shades[0], reverse=True)


def of_likelihoods(tmp_path, **options):
    """Return a study of two axes whose cells are measured by different likelihoods."""
    space = {"evaluate.likelihood": ["gaussian", "bernoulli"], "loss.beta": [1.0, 2.0]}
    builder = StudyBuilder(tmp_path / "nats", space, seeds=(0,), config=without_data(tmp_path))
    for number, likelihood in enumerate(space["evaluate.likelihood"]):
        for beta in space["loss.beta"]:
            builder.done(builder.cell(evaluate__likelihood=likelihood, loss__beta=beta)[0], elbo=500 * number - beta)
    return ablation(builder.study, **options)


def test_elbos_of_different_likelihoods_are_in_no_matrix_and_their_column_says_that_they_are_not_comparable(tmp_path):
    found = of_likelihoods(tmp_path)
    assert [matrix.column.key for matrix in found.matrices] == ["test/ssim", "test/kl", "test/active_units"]
    heads = table_of(parse(render_page([found])).all("table")[0])[0]
    assert heads[1:3] == ["ELBO (not comparable)nats per image", "reconstruction (not comparable)nats per image"]
    assert "SSIM ↑" in heads

    alone = shaded_matrices(of_likelihoods(tmp_path / "alone", metrics=["elbo"]))
    assert alone == LeftOut("Two axes as matrices", "no column shown is comparable between cells")


def test_cells_that_see_different_images_are_ranked_nowhere(tmp_path):
    space = {"data.width": [16, 32], "loss.beta": [1.0, 2.0, 3.0, 4.0, 5.0]}
    builder = StudyBuilder(tmp_path / "images", space, seeds=(0,), config=without_data(tmp_path))
    for width, fingerprint in ((16, FINGERPRINT), (32, "0" * 16)):
        builder.fingerprint = fingerprint
        for beta in space["loss.beta"]:
            (run,) = builder.cell(data__width=width, loss__beta=beta)
            builder.done(run, mse=0.001 * beta / width, parameters=width)
    found = ablation(builder.study)

    drawn = [draw(found, "x", same_elbo=False) for draw in (pareto, parallel_coordinates)]
    drawn += [drawn_importance(found, same_elbo=False), shaded_matrices(found)]

    assert found.matrices == ()
    assert [one.why for one in drawn] == ["cells see different images"] * 4


def test_the_collapse_map_says_every_verdict_in_words(painted, tmp_path):
    found = collapse_map(ablation(painted[0]))
    assert [place.word for place in found.rows[2][1]] == ["failed", "pruned"]
    assert found.rows[0][1][0].numbers == "AU 3, KL 8"
    collapsed = collapse_map(ablation(beta_study(tmp_path / "beta", config=without_data(tmp_path)).study))
    assert [place.word for place in collapsed.rows[2][1]] == ["full", "full"]
    assert collapsed.key == (("○", "none"), ("●", "full"))


def test_differences_are_those_of_common_seeds_and_only_some_hold(tmp_path):
    builder = StudyBuilder(
        tmp_path / "five",
        {"loss.beta": [1.0, 2.0, 3.0]},
        seeds=range(5),
        baseline={"loss.beta": 1.0},
        config=without_data(tmp_path),
    )
    for beta, shift in ((1.0, 0.0), (2.0, 50.0), (3.0, 0.01)):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, elbo=-100 + shift + 3 * seed + (-1) ** (seed * int(beta)) * 0.5)
    found = ablation(builder.study)
    place = [column.key for column in found.compared].index("test/elbo")

    rows = difference_rows(found, result_rows(found)[0])

    assert [row.name for row in rows] == ["loss.beta=2.0", "loss.beta=3.0"]
    far, near = (row.differences[place] for row in rows)
    assert far.value.startswith("+5")
    assert far.holds
    assert not near.holds
    assert far.p.startswith("p ")
    assert re.fullmatch(r"\[\d[\d.]*, \d[\d.]*\]", far.interval)


def test_of_many_cells_the_first_and_the_baseline_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.page.tables.MOST_ROWS", 3)
    values = [float(value) for value in range(1, 8)]
    builder = StudyBuilder(
        tmp_path / "many", {"loss.beta": values}, seeds=(0,), baseline={"loss.beta": 6.0}, config=without_data(tmp_path)
    )
    for value in values:
        builder.done(builder.cell(loss__beta=value)[0])
    found = ablation(builder.study)

    rows, _, left = result_rows(found)

    assert [row.name for row in rows] == [f"loss.beta={value}" for value in (1.0, 2.0, 3.0, 6.0)]
    assert left == 3
    page = parse(render_page([found]))
    assert "3 further cells are not shown here; report.csv has all 7." in page.text


def test_of_many_series_the_baseline_is_always_shown(tmp_path):
    values = [float(value) for value in range(1, 31)]
    builder = StudyBuilder(
        tmp_path / "many", {"loss.beta": values}, seeds=(0,), baseline={"loss.beta": 5.0}, config=without_data(tmp_path)
    )
    for value in values:
        builder.done(builder.cell(loss__beta=value)[0])
    found = ablation(builder.study)

    shown = shown_series(found)

    assert len(shown) == 12
    assert 5.0 in [series.cell.params["loss.beta"] for series in shown]
    assert [series.cell.params["loss.beta"] for series in (shown[0], shown[-1])] == [1.0, 30.0]
    assert len({series.colour for series in shown}) == 12


def test_long_names_break_inside_the_column_of_names(tmp_path):
    page = render_page([ablation(beta_study(tmp_path / "study").study)])

    rule = re.search(r"\.pinned th:first-child \{ max-width: 14rem;([^}]*)\}", page)
    assert rule is not None
    assert "overflow-wrap: anywhere" in rule[1]


def test_as_many_looks_differ_as_there_are_pairs_of_colours_and_markers(tmp_path):
    names = [f"/{number}" for number in range(49)]
    builder = StudyBuilder(tmp_path / "study", {"data.path": names}, seeds=(0,))
    for name in names:
        builder.done(builder.cell(data__path=name)[0])

    found = shown_series(ablation(builder.study), 49)
    assert len({(series.colour, series.marker) for series in found}) == 49


@pytest.mark.parametrize(
    "labels",
    [
        ["beta = 1, lr = 0.001, family = vq", "beta = 2, lr = 0.001, family = vq"],
        ["beta = 0.001, lr = 1e-05, family = vae", "beta = 0.001, lr = 1e-05, family = vq"],
        [f"latent_dim = 16, family = {name}, reduction = mean" for name in ("hierarchical", "hierarchy")],
        [f"{'x' * 50}{place}{'y' * 50}" for place in range(3)],
        [f"{'x' * 50}{place}" for place in range(3)],
    ],
)
def test_labels_cut_short_still_differ(labels):
    found = shortened(labels)

    assert len(set(found)) == len(labels)
    assert all(len(label) <= 35 for label in found)


def test_inline_svg_follows_the_page_and_keeps_texts_as_they_are():
    with page_style("key"):
        figure, axes = new_axes()
        axes.plot([1, 2, 3], [0.01764, 0.01765, 0.01766], color=sequential(1.0), marker="o")
        axes.set_xlabel("0.12345 <b> $x_1$ & $ \N{CJK UNIFIED IDEOGRAPH-4E2D}", color=INK)
        svg = inline_svg(figure, "key", 'a "label"')

    root = parse(svg)
    assert "0.12345 <b> $x_1$ & $ \N{CJK UNIFIED IDEOGRAPH-4E2D}" in root.text
    assert root.one("svg").attributes["aria-label"] == 'a "label"'
    assert "var(--q11)" in svg
    assert "currentColor" in svg
    assert not re.search(r"#010[0-9a-f]{3}", svg)
    assert "<style" not in svg
    assert all(element.attributes["id"].startswith("key-") for element in root.all() if "id" in element.attributes)
    assert max(len(number) for number in re.findall(r'(?<= )[xy]="\d+\.(\d+)"', svg)) == 2


def test_a_group_of_one_chart_is_narrow():
    group = FigureGroup("a", "A", "", (None,))
    assert group.is_narrow
    assert not replace(group, is_wide=True).is_narrow
    assert not replace(group, panels=(None, None)).is_narrow
