"""Text from people and models keeps its meaning in Streamlit's Markdown. What it may load: `test_page_policy.py`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from frontend.local_time import LocalClock
from frontend.markdown_safety import model_markdown, plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("from $5 to $10", "from \\$5 to \\$10"),
        ("already \\$5", "already \\$5"),
        ("$$2x$$ and $x^2$", "$$2x$$ and $x^2$"),
        ("`echo $1` costs $1", "`echo $1` costs \\$1"),
        ("```sh\necho $1\n```\n$1", "```sh\necho $1\n```\n\\$1"),
        ("```sh\necho $1", "```sh\necho $1"),
        ("![a](http://x/y.png)", "\\![a](http://x/y.png)"),
        ("![a][b]\n\n[b]: http://x", "\\![a][b]\n\n[b]: http://x"),
        ("`![a](b)`", "`![a](b)`"),
        ("Hello!", "Hello!"),
        ("", ""),
    ],
)
def test_amounts_stay_and_images_become_links(written: str, shown: str) -> None:
    assert model_markdown(written) == shown


def test_plain_text_has_no_markup_and_one_line() -> None:
    assert plain("*a*\n [b](c)") == "\\*a\\* \\[b\\]\\(c\\)"
    assert plain("用户 one") == "用户 one"


def test_times_are_on_the_readers_clock() -> None:
    moment = datetime(2025, 11, 3, 23, 30, tzinfo=UTC)
    assert LocalClock("Asia/Shanghai").format(moment) == "2025-11-04 07:30"
    assert LocalClock("America/New_York").format(moment) == "2025-11-03 18:30"


@pytest.mark.parametrize("zone", [None, "", "Nowhere/Atlantis", "../etc/passwd", "Europe", "Etc/Unknown"])
def test_an_unknown_zone_is_shown_as_utc_and_says_so(zone: str | None) -> None:
    clock = LocalClock(zone)
    assert (clock.zone_name, clock.known) == ("UTC", None)
    assert clock.format(datetime(2025, 1, 2, 3, 4, tzinfo=UTC)) == "2025-01-02 03:04"
