"""Grammars of the pages that are read and looked at; each fills a page that has its size."""

from vae_core.data.page_parts import Box, Draw, Rect, card, cards, footer, header, heading, lines


def home(page: Box, draw: Draw) -> None:
    """Header, hero, sometimes a band of logos, rows of cards, footer."""
    body = footer(page, draw, header(page, draw), 0.9)
    top, rest = body.split_y(min(body.h * draw.number(0.32, 0.5), 700))
    hero = page.add("hero", top)
    text, picture = hero.inside.inset(80, top.h * 0.16).split_x(draw.number(0.42, 0.58), 60)
    below = heading(hero, draw, text)
    lines(hero, draw, below.split_y(below.h * 0.45)[0])
    hero.add("button", Rect(text.x, text.y + text.h * 0.78, draw.number(150, 240), text.h * 0.2))
    if draw.chance(0.8):
        hero.add("image", picture)
    columns = draw.count(3, 4)
    rest = rest.inset(80, 45)
    if rest.h > 620 and draw.chance(0.6):
        band, rest = rest.split_y(draw.number(110, 170), 40)
        strip = page.add("band", Rect(0, band.y, page.rect.w, band.h))
        for cell in strip.inside.inset(110, band.h * 0.3).grid(draw.count(4, 6), 1, 60):
            strip.add("logo", cell)
    cards(page, draw, rest, columns, draw.number(0.35, 0.55), draw.number(300, 400))


def news(page: Box, draw: Draw) -> None:
    """A lead story beside a list of short ones, then a grid of stories."""
    body = footer(page, draw, header(page, draw), 0.6).inset(50, 30)
    if draw.chance(0.5):
        ticker, body = body.split_y(50, 25)
        lines(page.add("band", ticker), draw, Rect(20, 16, ticker.w * 0.7, 18))
    top, rest = body.split_y(body.h if body.h < 640 else max(430, body.h * draw.number(0.3, 0.42)), 35)
    lead, side = top.split_x(draw.number(0.58, 0.7), 35)
    card(page, draw, lead, draw.number(0.6, 0.75))
    for row in side.grid(1, max(3, int(side.h // draw.number(85, 120))), 18):
        story = page.add("row", row)
        thumb, text = story.inside.inset(8).split_x(0.3, 16)
        story.add("image", thumb)
        lines(story, draw, text, 13, 12)
    if rest.h > 150:
        cards(page, draw, rest, draw.count(3, 4), 0.5, draw.number(230, 300))


def blog(page: Box, draw: Draw) -> None:
    """Posts with a picture each, one below the other, beside a column of widgets."""
    body = footer(page, draw, header(page, draw)).inset(70, 40)
    posts, side = body.split_x(draw.number(0.66, 0.74), 50)
    for row in posts.grid(1, max(2, round(posts.h / draw.number(270, 380))), 40):
        post = page.add("card", row)
        picture, text = post.inside.inset(16).split_x(draw.number(0.36, 0.44), 30)
        post.add("image", picture)
        lines(post, draw, heading(post, draw, text), 15, 15)
    for index, cell in enumerate(side.grid(1, max(2, round(side.h / draw.number(260, 360))), 40)):
        widget = page.add("panel", cell)
        inner = heading(widget, draw, widget.inside.inset(22))
        if index == 0 and draw.chance(0.6):
            widget.add("avatar", Rect(inner.x + inner.w * 0.25, inner.y, inner.w * 0.5, min(inner.w * 0.5, inner.h)))
        else:
            lines(widget, draw, inner, 15, 18)


def article(page: Box, draw: Draw) -> None:
    """One narrow column: title, byline, figure, paragraphs, quotes."""
    body = footer(page, draw, header(page, draw), 0.5)
    margin = draw.number(190, 310)
    column = heading(page, draw, body.inset(margin, 45))
    byline, column = column.split_y(50, 30)
    page.add("avatar", Rect(byline.x, byline.y, 50, 50))
    page.add("text", Rect(byline.x + 70, byline.y + 15, draw.number(150, 280), 20))
    if draw.chance(0.7):
        figure, column = column.split_y(min(draw.number(240, 420), column.h * 0.4), 35)
        wide = draw.number(0, margin * 0.6)
        page.add("image", figure.inset(-wide, 0))
    while column.h > 60:
        paragraph, column = column.split_y(draw.number(150, 330), 38)
        if column.h > 300 and draw.chance(0.2):
            quote = page.add("quote", paragraph.inset(50, 0))
            lines(quote, draw, quote.inside.inset(40, 30), 22, 22)
        else:
            lines(page, draw, paragraph, 17, 17)


def gallery(page: Box, draw: Draw) -> None:
    """A grid or a masonry of pictures."""
    body = footer(page, draw, header(page, draw), 0.3)
    body = body.inset(draw.number(15, 60), 25)
    if draw.chance(0.5):
        chips, body = body.split_y(46, 25)
        for index in range(draw.count(3, 7)):
            page.add("chip", Rect(chips.x + index * 150, chips.y, 125, chips.h))
    columns, gap = draw.count(3, 5), draw.number(14, 30)
    if draw.chance(0.4):
        for column in body.grid(columns, 1, gap):
            while column.h > 60:
                tile, column = column.split_y(column.w * draw.number(0.6, 1.5), gap)
                page.add("image", tile)
    else:
        rows = max(1, round(body.h / (body.w / columns)))
        for tile in body.grid(columns, rows, gap):
            page.add("image", tile)


def faq(page: Box, draw: Draw) -> None:
    """One column of questions, some of them opened."""
    body = footer(page, draw, header(page, draw)).inset(draw.number(120, 240), 45)
    rest = heading(page, draw, body, centred=True)
    opened = draw.number(0.15, 0.4)
    closed_height, gap = draw.number(68, 95), draw.number(16, 30)
    while rest.h >= closed_height:
        is_open = draw.chance(opened) and rest.h > 3 * closed_height
        rect, rest = rest.split_y(closed_height + draw.number(90, 200) * is_open, gap)
        item = page.add("row", rect)
        item.add("title", Rect(28, closed_height * 0.34, rect.w * draw.number(0.35, 0.75), closed_height * 0.32))
        item.add("button", Rect(rect.w - 28 - 34, closed_height * 0.5 - 17, 34, 34))
        if is_open:
            lines(item, draw, Rect(28, closed_height, rect.w - 120, rect.h - closed_height - 24), 15, 14)


def team(page: Box, draw: Draw) -> None:
    """A grid of portraits with names, centred."""
    body = heading(page, draw, footer(page, draw, header(page, draw)).inset(90, 50), centred=True)
    intro, body = body.split_y(60, 40)
    lines(page, draw, intro.inset(intro.w * 0.18, 0), 17, 18)
    columns = draw.count(3, 5)
    rows = max(1, int(body.h // (body.w / columns * 1.15)))
    for cell in body.grid(columns, rows, draw.number(35, 55)):
        size = min(cell.w * 0.72, cell.h * 0.6)
        middle = cell.x + cell.w / 2
        page.add("avatar", Rect(middle - size / 2, cell.y, size, size))
        for index, (width, height) in enumerate(((draw.number(0.5, 0.8), 24), (draw.number(0.3, 0.6), 16))):
            top = cell.y + size + 20 + index * 40
            page.add(
                "title" if index == 0 else "text",
                Rect(middle - cell.w * width / 2, top, cell.w * width, height),
            )


def profile(page: Box, draw: Draw) -> None:
    """Cover, avatar over its edge, a column about the person, a feed of posts."""
    body = header(page, draw)
    cover, body = body.split_y(min(draw.number(190, 330), body.h * 0.4))
    page.add("image", cover)
    size = draw.number(170, 240)
    left = draw.number(70, 120) if draw.chance(0.6) else (page.rect.w - size) / 2
    page.add("avatar", Rect(left, body.y - size * 0.55, size, size))
    names, body = body.split_y(size * 0.45 + 40, 15)
    beside = left + size + 30
    page.add("title", Rect(beside, names.y + 20, draw.number(180, 300), 34))
    page.add("button", Rect(page.rect.w - 270, names.y + 20, 200, 55))
    side, feed = body.inset(70, 20).split_x(draw.number(0.26, 0.36), 40)
    about = page.add("panel", side.split_y(side.h * draw.number(0.4, 0.9))[0])
    lines(about, draw, heading(about, draw, about.inside.inset(24)), 16, 20)
    for row in feed.grid(1, max(1, round(feed.h / draw.number(240, 340))), 30):
        post = page.add("card", row)
        inner = post.inside.inset(20)
        post.add("avatar", Rect(inner.x, inner.y, 60, 60))
        post.add("text", Rect(inner.x + 80, inner.y + 20, inner.w * 0.3, 20))
        lines(post, draw, inner.split_y(78)[1], 15, 15)
