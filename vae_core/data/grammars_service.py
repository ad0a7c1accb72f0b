"""Grammars of the pages on which something is done; each fills a page that has its size."""

from vae_core.data.page_parts import Box, Draw, Rect, cards, footer, form, header, heading, lines, table


def contact(page: Box, draw: Draw) -> None:
    """A form beside a map with an address."""
    body = heading(page, draw, footer(page, draw, header(page, draw)).inset(80, 45))
    left, right = body.split_x(draw.number(0.45, 0.6), draw.number(40, 80))
    if draw.chance(0.35):
        left, right = right, left
    panel = page.add("panel", left)
    fields = max(2, min(6, int(left.h // draw.number(100, 150)) - 1))
    form(panel, draw, panel.inside.inset(36), fields, draw.number(0.3, 0.6))
    where, details = right.split_y(right.h * draw.number(0.45, 0.7), 35)
    place = page.add("map", where)
    pin = draw.number(40, 70)
    place.add("pin", Rect(where.w * draw.number(0.3, 0.7), where.h * draw.number(0.3, 0.6), pin, pin))
    lines(page, draw, details, 20, 22)


def pricing(page: Box, draw: Draw) -> None:
    """Plans side by side, one of them raised; sometimes questions below."""
    body = heading(page, draw, footer(page, draw, header(page, draw)).inset(90, 50), centred=True)
    plans, questions = body.split_y(body.h if body.h < 900 else body.h * draw.number(0.55, 0.8), 60)
    columns = draw.count(2, 4)
    favourite = draw.count(0, columns - 1)
    for index, cell in enumerate(plans.grid(columns, 1, draw.number(25, 50))):
        drop = 0 if index == favourite else cell.h * 0.07
        plan = page.add("plan" if index == favourite else "card", cell.inset(0, drop))
        inner = plan.inside.inset(30, 30)
        name, rest = inner.split_y(30, 24)
        plan.add("title", name.inset(name.w * 0.2, 0))
        price, rest = rest.split_y(draw.number(70, 100), 30)
        plan.add("price", price.inset(price.w * 0.12, 0))
        features, button = rest.split_y(rest.h - 65)
        lines(plan, draw, features.inset(10, 0), 16, draw.number(22, 34))
        plan.add("button", button)
    if questions.h > 80:
        for row in questions.grid(1, max(1, int(questions.h // 80)), 20):
            lines(page.add("row", row), draw, Rect(24, row.h * 0.35, row.w * 0.6, 20))


def product(page: Box, draw: Draw) -> None:
    """A picture with thumbnails beside the details; sometimes related products below."""
    body = footer(page, draw, header(page, draw)).inset(70, 40)
    top, rest = body.split_y(body.h if body.h < 680 else max(480, body.h * draw.number(0.42, 0.6)), 45)
    left, right = top.split_x(draw.number(0.46, 0.56), 50)
    picture, thumbs = left.split_y(left.h * 0.8, 16)
    page.add("image", picture)
    for cell in thumbs.grid(draw.count(4, 6), 1, 14):
        page.add("thumb", cell)
    info = heading(page, draw, right)
    price, info = info.split_y(50, 25)
    page.add("price", Rect(price.x, price.y, draw.number(130, 220), price.h))
    text, buy = info.split_y(info.h - 170, 20)
    lines(page, draw, text, 17, 17)
    swatches, buy = buy.split_y(50, 30)
    for index in range(draw.count(3, 6)):
        page.add("thumb", Rect(swatches.x + index * 66, swatches.y, 50, 50))
    page.add("button", Rect(buy.x, buy.y, buy.w * draw.number(0.6, 1.0), 70))
    if rest.h > 140:
        related = heading(page, draw, rest)
        cards(page, draw, related, draw.count(4, 5), 0.68, draw.number(260, 330))


def login(page: Box, draw: Draw) -> None:
    """A small panel with a form, alone or beside a large picture."""
    whole = header(page, draw) if draw.chance(0.3) else page.inside
    if draw.chance(0.45):
        whole, half = whole.split_x(draw.number(0.4, 0.62), 0)
        if draw.chance(0.5):
            whole, half = whole._replace(x=half.w), half._replace(x=0)
        page.add("image", half)
    width, height = min(draw.number(360, 640), whole.w * 0.84), min(draw.number(400, 700), whole.h * 0.86)
    left = whole.x + (whole.w - width) * (0.5 if draw.chance(0.7) else draw.number(0.1, 0.9))
    panel = page.add("panel", Rect(left, whole.y + (whole.h - height) * draw.number(0.35, 0.6), width, height))
    inner = panel.inside.inset(width * draw.number(0.06, 0.14), 36)
    logo, inner = inner.split_y(draw.number(50, 100), 28)
    panel.add("logo", logo.inset(logo.w * draw.number(0.1, 0.38), 0))
    if draw.chance(0.5):
        others, inner = inner.split_y(48, 26)
        for cell in others.grid(draw.count(1, 3), 1, 18):
            panel.add("chip", cell)
    links, inner = inner.split_y(18 * draw.count(0, 1), 20)
    form(panel, draw, inner, draw.count(1, 4), 1.0 if draw.chance(0.7) else 0.45)
    if links.h > 0:
        panel.add("text", Rect(links.x + links.w * 0.25, height - 26, links.w * 0.5, 14))


def checkout(page: Box, draw: Draw) -> None:
    """Steps, sections of a form, and a summary of the order beside them."""
    body = header(page, draw).inset(80, 35)
    steps, body = body.split_y(draw.number(40, 60), 40)
    for cell in steps.grid(draw.count(3, 4), 1, 30):
        page.add("step", cell)
    left, right = body.split_x(draw.number(0.58, 0.66), 50)
    sections = max(1, round(left.h / draw.number(420, 560)))
    for cell in left.grid(1, sections, 30):
        panel = page.add("panel", cell)
        form(panel, draw, heading(panel, draw, panel.inside.inset(30)), draw.count(2, 4), 0.4)
    summary = page.add("summary", right.split_y(min(right.h, draw.number(420, 640)))[0])
    inner = heading(summary, draw, summary.inside.inset(28))
    items, total = inner.split_y(inner.h - 80, 10)
    for row in items.grid(1, draw.count(2, 4), 16):
        summary.add("thumb", Rect(row.x, row.y, min(row.h, 80), row.h))
        lines(summary, draw, Rect(row.x + 100, row.y + row.h * 0.2, row.w - 110, row.h * 0.6), 15, 14)
    summary.add("button", total)


def dashboard(page: Box, draw: Draw) -> None:
    """A sidebar, tiles with figures, charts, a table."""
    bar, body = page.inside.split_x(draw.number(0.14, 0.23), 0)
    side = page.add("sidebar", bar)
    logo, menu = side.inside.inset(24, 28).split_y(50, 45)
    side.add("logo", logo)
    for index in range(draw.count(4, 9)):
        side.add("text", Rect(menu.x, menu.y + index * 58, menu.w * draw.number(0.6, 1.0), 24))
    body = body.inset(35, 30)
    tiles, body = body.split_y(draw.number(110, 160), 30)
    for cell in tiles.grid(draw.count(3, 5), 1, 25):
        tile = page.add("card", cell)
        tile.add("price", tile.inside.inset(cell.w * 0.15, cell.h * 0.3))
    charts, rest = body.split_y(body.h if body.h < 480 else draw.number(300, 420), 30)
    shares = [draw.number(0.55, 0.7)] if draw.chance(0.7) else []
    for cell in charts.split_x(shares[0], 30) if shares else (charts,):
        _chart(page, draw, cell)
    if rest.h > 120:
        table(page, draw, rest, draw.number(58, 80))


def _chart(page: Box, draw: Draw, rect: Rect) -> None:
    chart = page.add("panel", rect)
    inner = chart.inside.inset(28)
    bars = max(4, int(inner.w // draw.number(45, 80)))
    for cell in inner.grid(bars, 1, 16):
        height = cell.h * draw.number(0.25, 1.0)
        chart.add("bar", Rect(cell.x, cell.y + cell.h - height, cell.w, height))


def search(page: Box, draw: Draw) -> None:
    """A search field, filters, and rows of results."""
    bar, body = page.inside.split_y(draw.number(120, 190))
    top = page.add("hero", bar)
    field = top.inside.inset(draw.number(150, 300), bar.h * 0.28)
    top.add("field", field).add("button", Rect(field.w * 0.86, 0, field.w * 0.14, field.h))
    body = footer(page, draw, body, 0.4).inset(60, 35)
    filters, results = body.split_x(draw.number(0.2, 0.28), 45)
    panel = page.add("panel", filters.split_y(filters.h * draw.number(0.6, 1.0))[0])
    for row in panel.inside.inset(22).grid(1, max(3, int(panel.rect.h // draw.number(55, 85))), 20):
        panel.add("check", Rect(row.x, row.y, 24, 24))
        panel.add("text", Rect(row.x + 40, row.y + 3, (row.w - 40) * draw.number(0.5, 1.0), 18))
    for row in results.grid(1, max(3, int(results.h // draw.number(115, 175))), 28):
        hit = page.add("row", row)
        rest = hit.inside.inset(12)
        if draw.chance(0.9):
            hit.add("thumb", Rect(rest.x, rest.y, rest.h, rest.h))
            rest = Rect(rest.x + rest.h + 24, rest.y, rest.w - rest.h - 24, rest.h)
        title, rest = rest.split_y(24, 16)
        hit.add("title", Rect(title.x, title.y, title.w * draw.number(0.4, 0.7), title.h))
        lines(hit, draw, rest, 14, 13)
