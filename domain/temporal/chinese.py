"""Reads times named in Chinese. Each rule is a form; the earlier rule wins where two would match.

Chinese has no spaces, so a time can seem to be where there is none: 晚上周围 contains 上周, 以前年轻 contains 前年,
过去年月 contains 去年. Each form says what may not stand beside it.
"""

from __future__ import annotations

import re
from datetime import datetime

from domain.temporal.grammar import Moment, Reading, Rule, no_time
from domain.temporal.spans import (
    DAY,
    HALF_A_MONTH,
    HALF_A_YEAR,
    WEEK,
    Span,
    Unit,
    around,
    date_begun,
    day_of,
    month_begun,
    month_of,
    season_before,
    season_begun,
    season_of,
    unit_ago,
    unit_of,
    units_before,
    weekday_before,
    weekday_of_week,
    weekend_of,
    year_of,
)

_DIGITS = "零一二三四五六七八九"
_WEEKDAYS = "一二三四五六日"
_SEASONS = {"春": "spring", "夏": "summer", "秋": "autumn", "冬": "winter"}
_UNITS: dict[str, Unit] = {
    "天": "day",
    "日": "day",
    "周": "week",
    "星": "week",
    "礼": "week",
    "月": "month",
    "年": "year",
}

_NUMBER = "[一二三四五六七八九十两]{1,3}"
_COUNT = rf"(?:\d{{1,3}}|{_NUMBER}|几|半)"
_UNIT = "(?:天|日|周|个?星期|个?礼拜|个月|年)"
_WEEK = "(?:周|个?星期|个?礼拜)"
_ZERO = "〇零○"
_YEAR = rf"(?<!\d)(?:(?:19[5-9]|20\d)\d|二[{_ZERO}][{_DIGITS}{_ZERO}]{{2}})\ ?年"
_MONTH = r"(?:1[0-2]|0?[1-9]|十[一二]?|[一二三四五六七八九])\ ?月"
_DAY = r"(?:3[01]|[12]\d|0?[1-9]|三十一?|二?十[一二三四五六七八九]?|[一二三四五六七八九])\ ?[日号]"
_NOT_BEHIND_ON = "(?<![晚早网路身海天地赶以马世手街桌船楼车线加])"
"""At the end of 晚上, 网上, 赶上 and the like, 上 says where or what, not when."""
_BEGINS = r"(?:(?<![\s\S])|(?<=[，。！？、；：,.!?;:\s我你们在从是跟和]))"
"""What may precede 上一周 and 上一个月: after other words 上 may be a verb (班上一周)."""
_NOT_ABOUT = "(?![围边转折密全到杰期刊])"
"""After 周 these make other words: 周围, 周边, 周转, 周折, 周密, 周全, 周到, 周期, 周刊."""

SIMPLIFIED = str.maketrans(
    "週個禮號兩幾過這後發應該會將計劃準備網馬樓車線趕從轉邊圍來節於雜傑經餅錢剛說講問課帳賬題語貨軍鵝輩費",
    "周个礼号两几过这后发应该会将计划准备网马楼车线赶从转边围来节于杂杰经饼钱刚说讲问课账账题语货军鹅辈费",
)
"""Traditional to simplified, for the characters that the rules and patterns below contain."""
JAPANESE = re.compile("[\u3040-\u30ff]")
"""Kana mark a Japanese text, in which 週 and 過 mean something else."""

LOOKS_BACK = re.compile(r"了|过(?![去敏年期来程分度于节生])|聊|提到|提起|发生|刚才|之前|说的|讲的|问的|做的|去的")
LOOKS_AHEAD = re.compile(r"[将]|打算|计划|准备|应该|明天|后天|下个?(?:周|星期|礼拜|月)|明年|会不会|要不要")


def _rule(pattern: str, read: Reading, *, dated: bool = False) -> Rule:
    return Rule(re.compile(pattern, re.VERBOSE), read, dated)


def _number(written: str) -> int:
    """Read 7, 七, 两, 十二 or 三十一."""
    if written.isdigit():
        return int(written)
    tens, ten, ones = written.replace("两", "二").rpartition("十")
    unit = _DIGITS.index(ones) if ones else 0
    if not ten:
        return unit
    return 10 * (_DIGITS.index(tens) if tens else 1) + unit


def _leading_number(written: str) -> int:
    found = re.match(r"\d+|[一二三四五六七八九十两]+", written)
    assert found is not None
    return _number(found.group())


def _year(written: str, now: datetime) -> int:
    """Read 2023年, 二〇二三年 or 去年."""
    back = {"今": 0, "去": 1, "前": 2, "大": 3}.get(written[0])
    if back is not None:
        return now.year - back
    if written[:4].isdigit():
        return int(written[:4])
    return int("".join(str(_DIGITS.index("零" if digit in _ZERO else digit)) for digit in written[:4]))


def _unit(written: str) -> Unit:
    return _UNITS[written.removeprefix("个")[0]]


def _weekday(written: str) -> int:
    return _WEEKDAYS.index("日" if written == "天" else written)


def _full_date(match: re.Match[str], moment: Moment) -> Span | None:
    """Read 2023年, 2023年5月, 2023年5月7日, 2023年夏天, 去年5月, 去年5月7日, 去年夏天."""
    now = moment.now
    if match["year"] == "今年" and not (match["month"] or match["season"] or moment.only_looks_back):
        return None  # 今年有什么打算 asks for no memory of this year
    year = _year(match["year"], now)
    start = day_of(now)[0].replace(year=year, month=1, day=1)
    if match["season"]:
        return season_of(now, year, _SEASONS[match["season"]])
    if not match["month"]:
        return year_of(start)
    start = start.replace(month=_leading_number(match["month"]))
    return day_of(start.replace(day=_leading_number(match["day"]))) if match["day"] else month_of(start)


def _short_date(match: re.Match[str], moment: Moment) -> Span | None:
    if moment.looks_ahead:
        return None
    month = _leading_number(match["month"])
    if match["day"]:
        return date_begun(moment.now, month, _leading_number(match["day"]))
    return month_begun(moment.now, month)


def _between(match: re.Match[str], moment: Moment) -> Span:
    year = _year(match["year"], moment.now) if match["year"] else moment.now.year
    start = day_of(moment.now)[0].replace(year=year, month=1, day=1)
    month_until, day_until = match["month_until"] or match["month_from"], match["day_until"] or match["last_day"]
    first = start.replace(month=_leading_number(match["month_from"]), day=_leading_number(match["day_from"] or "1"))
    last = start.replace(month=_leading_number(month_until), day=_leading_number(day_until or "1"))
    span = first, day_of(last)[1] if day_until else month_of(last)[1]
    if first >= span[1]:
        raise ValueError("the first date is after the last")
    return span


def _last_week(match: re.Match[str], moment: Moment) -> Span:
    week = moment.now - len(match["back"]) * WEEK
    if match["weekday"] is None:
        return unit_of(week, "week")
    days = weekend_of(week) if match["weekday"] == "末" else weekday_of_week(week, _weekday(match["weekday"]))
    written = match.groupdict().get("until")
    return (days[0], max(days[1], weekday_of_week(week, _weekday(written))[1])) if written else days


def _this_day_of_a_year(match: re.Match[str], moment: Moment) -> Span:
    return day_of(moment.now.replace(year=_year(match["year"], moment.now)))


def _last_month(match: re.Match[str], moment: Moment) -> Span:
    month = unit_of(units_before(moment.now, "month", len(match["back"])), "month")
    return day_of(month[0].replace(day=_leading_number(match["day"]))) if match["day"] else month


def _this_week(match: re.Match[str], moment: Moment) -> Span | None:
    if not moment.only_looks_back:
        return None
    if match["weekday"] is None:
        return unit_of(moment.now, "week")
    if match["weekday"] == "末":
        return weekend_of(moment.now)
    return weekday_of_week(moment.now, _weekday(match["weekday"]))


def _ago(match: re.Match[str], moment: Moment) -> Span:
    unit = _unit(match["unit"])
    if match["count"] == "半":
        return around(moment.now, {"year": HALF_A_YEAR, "month": HALF_A_MONTH}.get(unit, DAY))
    fewest, most = (2, 5) if match["count"] == "几" else (_number(match["count"]),) * 2
    return unit_ago(moment.now, unit, most)[0], min(unit_ago(moment.now, unit, fewest)[1], day_of(moment.now)[1])


def _past_units(match: re.Match[str], moment: Moment) -> Span:
    unit = _unit(match["unit"])
    if match["count"] == "半":
        since = moment.now - {"day": DAY, "week": 4 * DAY, "month": HALF_A_MONTH, "year": HALF_A_YEAR}[unit]
    else:
        since = units_before(moment.now, unit, 5 if match["count"] == "几" else _number(match["count"]))
    return day_of(since)[0], day_of(moment.now)[1]


def _now_if_back(unit: Unit) -> Reading:
    def read(_match: re.Match[str], moment: Moment) -> Span | None:
        return unit_of(moment.now, unit) if moment.only_looks_back else None

    return read


def _weekday_alone(match: re.Match[str], moment: Moment) -> Span | None:
    if not moment.only_looks_back:
        return None
    return weekday_before(moment.now, _weekday(match["weekday"]))


_RELATIVE_YEAR = "(?:今年|(?<!过)去年|大前年|(?<![以之从目先大])前年)"
RULES = (
    # A title: 《昨日的世界》.
    _rule(r"《[^《》]*》", no_time),
    # The future, and what recurs, is not a time of a memory.
    _rule(
        rf"(?:每年?|明年|后年|下+个?|逢)(?:的?{_MONTH}(?:{_DAY})?|{_WEEK}[一二三四五六日天末]?|年|天|个?月|[春夏秋冬]天)",
        no_time,
    ),
    _rule(
        rf"(?<![\d.一二三四五六七八九十])从?(?:(?P<year>{_YEAR}|{_RELATIVE_YEAR})的?)?(?P<month_from>{_MONTH})(?P<day_from>{_DAY})?[到至]"
        rf"(?:(?P<month_until>{_MONTH})(?P<day_until>{_DAY})?|(?P<last_day>{_DAY}))",
        _between,
        dated=True,
    ),
    _rule(rf"(?P<year>{_RELATIVE_YEAR})的?今[天日]", _this_day_of_a_year, dated=True),
    _rule(
        rf"(?P<year>{_YEAR}|{_RELATIVE_YEAR})(?>的?(?:(?P<month>{_MONTH})份?(?P<day>{_DAY})?|(?P<season>[春夏秋冬])[天季])?)"
        r"(?![前以之级款版代轻纪]|问题)",
        _full_date,
        dated=True,
    ),
    _rule(
        rf"(?<![\d.年一二三四五六七八九十叫])(?P<month>{_MONTH})(?>(?:份|(?P<day>{_DAY}))?)"
        # 五月天 is a band, 三月三 a feast, 三月雪 and 八月瓜 are plants, 五月花 a ship (but 五月花了多少 means what was
        # spent), 一月一次 means once a month, and 五月以前 has no beginning.
        "(?![一二三四五六七八九十两天前后以之饼光亮球薪经季票来雪瓜]|花(?![了费钱掉多]))",
        _short_date,
        dated=True,
    ),
    _rule(
        rf"(?<![\d月一二三四五六七八九十])(?P<count>{_COUNT})(?P<unit>{_UNIT})(?:之前|以前|前(?![天辈]|台(?![风北湾中南东])))",
        _ago,
    ),
    _rule(rf"(?:过去|最近|近)(?:的?)(?P<count>{_COUNT})(?P<unit>{_UNIT})(?!比)", _past_units),
    _rule(
        r"(?<![以之从目])前[几两]天",
        lambda _match, moment: (day_of(moment.now - 5 * DAY)[0], day_of(moment.now)[0]),
    ),
    _rule(
        rf"{_NOT_BEHIND_ON}(?P<back>上{{1,3}}){_WEEK}{_NOT_ABOUT}(?P<weekday>[一二三四五六日天末])?"
        r"(?:(?<=[一二三四五六日天])[到至](?:周|星期|礼拜)(?P<until>[一二三四五六日天])(?![一二三四五六七八九十]))?",
        _last_week,
    ),
    _rule(
        rf"{_NOT_BEHIND_ON}(?P<back>上{{1,3}})(?:个月|月(?![亮光球饼色薪经季票台]))(?P<day>{_DAY})?",
        _last_month,
    ),
    _rule(
        rf"{_BEGINS}(?P<back>上)一{_WEEK}(?!年|的?[课班])(?P<weekday>[一二三四五六日天末])?",
        _last_week,
    ),
    _rule(rf"{_BEGINS}(?P<back>上)一个月(?!亮|的?[课班房夜])(?P<day>{_DAY})?", _last_month),
    _rule(
        r"上个?(?P<season>[春夏秋冬])[天季]", lambda match, moment: season_before(moment.now, _SEASONS[match["season"]])
    ),
    _rule(rf"(?<![日书课剧])(?:本|这个?|这一){_WEEK}{_NOT_ABOUT}(?P<weekday>[一二三四五六日天末])?", _this_week),
    _rule(r"(?<![基根日书课剧])(?:本|这个)月(?![亮光薪])", _now_if_back("month")),
    _rule(
        r"这个?(?P<season>[春夏秋冬])[天季]",
        lambda match, moment: season_begun(moment.now, _SEASONS[match["season"]]) if moment.looks_back else None,
    ),
    _rule(r"大前[天日]", lambda _match, moment: day_of(moment.now - 3 * DAY)),
    _rule(
        # 前天线坏了 and 前日本首相 are about what was in front or before.
        r"(?<![以之从目先])前(?:天(?![天线鹅津堂]|使(?!用)|才(?:少年|儿童|[男女]))|日(?![天本军元语货系]))",
        lambda _match, moment: day_of(moment.now - 2 * DAY),
    ),
    _rule(r"昨[天日晚夜早]", lambda _match, moment: day_of(moment.now - DAY)),
    _rule(r"今[天早晚日]", _now_if_back("day")),
    _rule(
        r"(?<![每下上这个])(?:周|星期|礼拜)(?P<weekday>[一二三四五六日天])(?![一二三四五六七八九十])", _weekday_alone
    ),
)
HINT = re.compile(r"[天日周月年]|星期|礼拜|昨|今[早晚]")
"""Every rule needs one of these: a text without any is not read further."""
