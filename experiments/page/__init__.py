"""The HTML report of studies: what it shows, how it is drawn, how it looks."""

from experiments.page.render import render_page

__all__ = ["render_page"]
