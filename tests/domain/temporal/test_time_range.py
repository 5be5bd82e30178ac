"""A question that names a time is read; one that only seems to is not, since a wrong range does harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.temporal.time_range import QUESTION_CHARS_MAX, TIMES_MAX, TimeRange, time_range

NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
"""A Tuesday."""

ENGLISH = [
    # Relative to now.
    ("What did we do yesterday?", "2026-11-23", "2026-11-24"),
    ("What did I dream last night?", "2026-11-23", "2026-11-24"),
    ("the day before yesterday I told you a name", "2026-11-22", "2026-11-23"),
    ("What did I say three days ago?", "2026-11-21", "2026-11-22"),
    ("What did I say 1 day ago?", "2026-11-23", "2026-11-24"),
    ("A few days ago you gave me a recipe", "2026-11-19", "2026-11-23"),
    ("What did we do last week?", "2026-11-16", "2026-11-23"),
    ("the week before last", "2026-11-09", "2026-11-16"),
    ("the plan of two weeks ago", "2026-11-07", "2026-11-14"),
    ("LAST MONTH", "2026-10-01", "2026-11-01"),
    ("the car I had 3 years ago", "2023-05-26", "2024-05-25"),
    ("What happened last year?", "2025-01-01", "2026-01-01"),
    ("Where did I eat last weekend?", "2026-11-21", "2026-11-23"),
    ("last Friday", "2026-11-20", "2026-11-21"),
    ("last Tuesday", "2026-11-17", "2026-11-18"),
    ("What did I tell you on Friday?", "2026-11-20", "2026-11-21"),
    ("over the past two months", "2026-09-24", "2026-11-25"),
    ("in the last 10 days", "2026-11-14", "2026-11-25"),
    ("the other day", "2026-11-17", "2026-11-25"),
    ("What did I tell you today?", "2026-11-24", "2026-11-25"),
    ("What have we talked about this week?", "2026-11-23", "2026-11-30"),
    ("What did I read this year?", "2026-01-01", "2027-01-01"),
    ("last summer", "2026-06-01", "2026-09-01"),
    ("last fall", "2025-09-01", "2025-12-01"),
    ("last winter", "2025-12-01", "2026-03-01"),
    ("last May", "2026-05-01", "2026-06-01"),
    ("last December", "2025-12-01", "2026-01-01"),
    ("half a year ago", "2026-04-26", "2026-06-26"),
    ("What did we do last week on Friday?", "2026-11-20", "2026-11-21"),
    ("the call on Monday last week", "2026-11-16", "2026-11-17"),
    ("What happened last year in May?", "2025-05-01", "2025-06-01"),
    ("last year during the summer", "2025-06-01", "2025-09-01"),
    ("last month on the 5th", "2026-10-05", "2026-10-06"),
    ("on the 31st of last month", "2026-10-31", "2026-11-01"),
    ("from March to May 2025", "2025-03-01", "2025-06-01"),
    ("between November and January 2025", "2024-11-01", "2025-02-01"),
    ("What did I read between March and May?", "2026-03-01", "2026-06-01"),
    ("What did we do from October to December?", "2025-10-01", "2026-01-01"),
    ("Monday and Tuesday last week", "2026-11-16", "2026-11-23"),
    ("last week on Monday or Tuesday", "2026-11-16", "2026-11-23"),
    ("Last month on the 5th floor", "2026-10-01", "2026-11-01"),
    ("last year in spring rolls", "2025-01-01", "2026-01-01"),
    # Dates.
    ("What happened in May?", "2026-05-01", "2026-06-01"),
    ("What happened in december?", "2025-12-01", "2026-01-01"),
    ("Which films did we discuss in November?", "2026-11-01", "2026-12-01"),
    ("What happened in May 2023?", "2023-05-01", "2023-06-01"),
    ("in Sept. 2023", "2023-09-01", "2023-10-01"),
    ("What did I do on 7 May 2023?", "2023-05-07", "2023-05-08"),
    ("on May 7th", "2026-05-07", "2026-05-08"),
    ("on the 7th of May", "2026-05-07", "2026-05-08"),
    ("on December 1", "2025-12-01", "2025-12-02"),
    ("on December 1,2023", "2023-12-01", "2023-12-02"),
    ("on 29 February", "2024-02-29", "2024-03-01"),
    ("the photo of 2023-05-07", "2023-05-07", "2023-05-08"),
    ("2023/5/7", "2023-05-07", "2023-05-08"),
    ("2023-05-07T10:00:00Z", "2023-05-07", "2023-05-08"),
    ("the report of 2023-05", "2023-05-01", "2023-06-01"),
    ("Where was I in 2022?", "2022-01-01", "2023-01-01"),
    ("back in 1999", "1999-01-01", "2000-01-01"),
    ("the summer of 2021", "2021-06-01", "2021-09-01"),
    ("winter 2021", "2021-12-01", "2022-03-01"),
    ("since 2020", "2020-01-01", "2026-11-24T10:30"),
    ("since May", "2026-05-01", "2026-11-24T10:30"),
    ("after June 3rd", "2026-06-03", "2026-11-24T10:30"),
    # Beside a date.
    ("the week before 9 June", "2026-06-02", "2026-06-09"),
    ("the day after 9 June 2023", "2023-06-10", "2023-06-11"),
    ("the Sunday before October 25, 2022", "2022-10-23", "2022-10-24"),
    ("the Sunday after October 25, 2022", "2022-10-30", "2022-10-31"),
    ("the weekend before April 10, 2023", "2023-04-08", "2023-04-10"),
    ("the weekend after April 10, 2023", "2023-04-15", "2023-04-17"),
    ("the weekend of 9 April 2023", "2023-04-08", "2023-04-10"),
    ("the week of 9 June 2023", "2023-06-05", "2023-06-12"),
    ("two weeks before August 11, 2023", "2023-07-25", "2023-08-01"),
    ("between August 11 and August 15 2023", "2023-08-11", "2023-08-16"),
    ("from 3 May to 5 June 2026", "2026-05-03", "2026-06-06"),
    ("the last week of June 2023", "2023-06-01", "2023-07-01"),
    ("What happened in May last year?", "2025-05-01", "2025-06-01"),
    ("in the summer of last year", "2025-06-01", "2025-09-01"),
    ("in early 2022", "2022-01-01", "2023-01-01"),
    ("at the end of 2022", "2022-01-01", "2023-01-01"),
    ("Where was I in 2022 when we met?", "2022-01-01", "2023-01-01"),
    ("What did Ann say yesterday by phone?", "2026-11-23", "2026-11-24"),
    # Several: dates outweigh times relative to now; of one kind, from the first to the last.
    ("What did I say last week, as mentioned on November 6, 2023?", "2023-11-06", "2023-11-07"),
    ("yesterday or three days ago", "2026-11-21", "2026-11-24"),
    ("What changed: in 2021 I ran, in 2023 I swam.", "2021-01-01", "2024-01-01"),
]

CHINESE = [
    ("五月花了多少钱", "2026-05-01", "2026-06-01"),
    ("前天才说的那本书", "2026-11-22", "2026-11-23"),
    ("前天使用的菜谱", "2026-11-22", "2026-11-23"),
    ("三天前台北的酒店叫什么", "2026-11-21", "2026-11-22"),
    ("今年我说过什么", "2026-01-01", "2027-01-01"),
    ("昨天我说了什么？", "2026-11-23", "2026-11-24"),
    ("昨晚吃的什么", "2026-11-23", "2026-11-24"),
    ("前天", "2026-11-22", "2026-11-23"),
    ("大前天", "2026-11-21", "2026-11-22"),
    ("三天前我提到的书", "2026-11-21", "2026-11-22"),
    ("几天前你推荐的餐厅", "2026-11-19", "2026-11-23"),
    ("前几天聊的电影", "2026-11-19", "2026-11-24"),
    ("上周我们聊了什么？", "2026-11-16", "2026-11-23"),
    ("上个星期", "2026-11-16", "2026-11-23"),
    ("上上周", "2026-11-09", "2026-11-16"),
    ("上周五我去了哪里", "2026-11-20", "2026-11-21"),
    ("上个星期天", "2026-11-22", "2026-11-23"),
    ("上周末", "2026-11-21", "2026-11-23"),
    ("上上周日", "2026-11-15", "2026-11-16"),
    ("本周我说过什么", "2026-11-23", "2026-11-30"),
    ("今天我们聊了什么", "2026-11-24", "2026-11-25"),
    ("周三我说了什么", "2026-11-18", "2026-11-19"),
    ("上个月的账单", "2026-10-01", "2026-11-01"),
    ("上月", "2026-10-01", "2026-11-01"),
    ("这个月我花了多少", "2026-11-01", "2026-12-01"),
    ("两周前", "2026-11-07", "2026-11-14"),
    ("十二天前", "2026-11-12", "2026-11-13"),
    ("半年前我在哪里", "2026-04-26", "2026-06-26"),
    ("最近两周聊过的", "2026-11-10", "2026-11-25"),
    ("过去三个月", "2026-08-24", "2026-11-25"),
    ("去年我去过哪里", "2025-01-01", "2026-01-01"),
    ("前年", "2024-01-01", "2025-01-01"),
    ("去年5月", "2025-05-01", "2025-06-01"),
    ("去年夏天", "2025-06-01", "2025-09-01"),
    ("前年冬天", "2024-12-01", "2025-03-01"),
    ("今年3月", "2026-03-01", "2026-04-01"),
    ("2023年", "2023-01-01", "2024-01-01"),
    ("2023年5月发生了什么", "2023-05-01", "2023-06-01"),
    ("2023年5月7日", "2023-05-07", "2023-05-08"),
    ("2023年5月7号晚上", "2023-05-07", "2023-05-08"),
    ("2023年的夏天", "2023-06-01", "2023-09-01"),
    ("5月7日", "2026-05-07", "2026-05-08"),
    ("五月七号", "2026-05-07", "2026-05-08"),
    ("12月31日", "2025-12-31", "2026-01-01"),
    ("十二月三十一日", "2025-12-31", "2026-01-01"),
    ("5月份", "2026-05-01", "2026-06-01"),
    ("十二月", "2025-12-01", "2026-01-01"),
    ("二〇二三年五月", "2023-05-01", "2023-06-01"),
    ("上个月5号我花了多少", "2026-10-05", "2026-10-06"),
    ("7月4号到9号", "2026-07-04", "2026-07-10"),
    ("去年3月到5月", "2025-03-01", "2025-06-01"),
    ("去年的今天我在哪里", "2025-11-24", "2025-11-25"),
    ("上一周", "2026-11-16", "2026-11-23"),
    ("上一个星期五", "2026-11-20", "2026-11-21"),
    ("上一个月", "2026-10-01", "2026-11-01"),
    ("上周一到周三", "2026-11-16", "2026-11-19"),
    ("上周五到周一", "2026-11-20", "2026-11-21"),
    ("上周三到天安门", "2026-11-18", "2026-11-19"),
    ("上周五到三楼开会说了什么", "2026-11-20", "2026-11-21"),
    ("我上一周在忙什么", "2026-11-16", "2026-11-23"),
    ("上週五我們去哪裡了", "2026-11-20", "2026-11-21"),
    ("上個月", "2026-10-01", "2026-11-01"),
    ("三個月前", "2026-08-09", "2026-09-09"),
    ("从5月3日到5月7日", "2026-05-03", "2026-05-08"),
    ("2023年5月到8月", "2023-05-01", "2023-09-01"),
]

NO_TIME = [
    "What does my cat eat?",
    "May I ask you something?",
    "may I march on",
    "We march on Sunday mornings.",
    "7 may be enough",
    "May 5 people come?",
    "The committee may 3 times refuse.",
    "I march in marching bands",
    "in March formation",
    "Wait a second, second to none.",
    "The Sun shines and the cat sat on it.",
    "Python 2.0.1 and iPhone 15",
    "version 2023.1.2",
    "v2023-05-07-rc1",
    "CVE-2023-05-1234",
    "RFC 2023 and room 2019",
    "$2023",
    "Blade Runner 2049",
    "2022 was great",
    "We met 5/7",
    "Did I fall in spring water?",
    "When did we last talk?",
    "What's the last day of my trip?",
    "How long ago was that?",
    "my one-year-old child",
    "on 31 February 2023",
    "9999 years ago",
    # Names, titles and things.
    "Is the May flower poisonous to cats?",
    "Theresa May was prime minister",
    "What does April eat?",
    "My daughter June likes tuna",
    "Was June at the party?",
    "Who is Jan Novak?",
    "my friend Jan 5",
    "in August's words",
    "May the force be with you",
    "Give me a second opinion",
    "just a minute",
    "He sat down in the sun",
    "Is she wed? The Sun says so",
    "The march on Rome",
    "March madness brackets",
    "Black Friday deals",
    "Did I mention the Sunday Times?",
    "Sunday roast recipe",
    "Ruby Tuesday lyrics",
    "Who sang Yesterday by the Beatles?",
    "Play Last Christmas by Wham",
    "What happens in 1984 by Orwell?",
    "1984 by Orwell",
    "Did you read 1984?",
    "In 2001: A Space Odyssey, who is HAL?",
    "the Year 2000 problem",
    "Write it in 2000 words",
    "since 2000 people came",
    "Is the shop open 24/7?",
    "a 50/50 chance, 3/4 of a cup, 9/11",
    "Ubuntu 24.04 and Windows 11 23H2",
    "ISBN 978-1984, order 20230507, PIN 1999",
    "flight BA 2019 to Fall River",
    "Did I fall in love?",
    "spring onions, hot spring, Spring Boot 3",
    "the fall of Rome",
    "30 days return policy",
    "two years old",
    "a week's notice",
    "half past three",
    "I want my money back in 30 days",
    "How long does a day last?",
    "What was my last order number?",
    "the 5th of Beethoven on the 5th floor",
    # The present and the future hold no memory.
    "What should I wear today?",
    "What's on this week?",
    "What's on Friday?",
    "next Friday",
    "What will we do in June?",
    "What are my plans in December?",
    "in 2030",
    "on 7 May 2031",
    "tomorrow",
    "every Monday in the gym",
    "before 9 June",
    "before last summer",
    "until May",
    "by 2030",
    # Chinese.
    "我叫小林，对花生过敏",
    "今天吃什么",
    "这周有什么安排",
    "下周五",
    "明年5月",
    "每年5月",
    "每周五",
    "每个月",
    "周五有课吗",
    "晚上周围很安静",
    "网上周边",
    "日本周边",
    "海上月亮",
    "晚上月亮很圆",
    "以前年轻的时候",
    "以前天天跑步",
    "班上一周要多少钱",
    "能不能连续上一个月的夜班",
    "网上一个月的流量",
    "網上週末特賣",
    "馬上週末了",
    "趕上週五的火車",
    "網上一個月的流量",
    "今天過節吃什麼",
    "週日の過ごし方",
    "Will it rain from December to February?",
    "The shop is open from May to September",
    "I plan to move from June to August",
    "上一周年庆是谁办的",
    "晚上一周都没睡好",
    "过去年轻人",
    "五月天的演唱会",
    "三月三是什么节日",
    "三个月的孩子",
    "一周年",
    "2023年款的车",
    "2023年以前",
    "2023年5月以前",
    "5月7日之前",
    "五月十七日前",
    "三月份以前",
    "23年5月",
    "一月一次",
    "2.0.1版",
    "五月花号是什么船",
    "五月花號是什麼船",
    "我女儿叫五月",
    "三月雪是什么花",
    "八月瓜好吃吗",
    "五一劳动节有什么活动",
    "三八妇女节的来历",
    "《昨日的世界》是谁写的",
    "《2012》这部电影讲什么",
    "《一九八四》和1984是一本书吗",
    "今年有什么打算",
    "前天线坏了",
    "前天才少年是谁",
    "前日本首相是谁",
    "前日本首相的語錄",
    "三年前台经验",
    "三年前辈的话",
    "2000年问题是什么",
    "2000年問題是什麼",
    "最近一天比一天冷",
    "24/7营业的7-11便利店",
    "三天打鱼两天晒网",
    "七天连锁酒店",
    "周一到周五营业吗",
    "周杰伦的歌",
    "登上月球",
    "第三周的课",
    "百年孤独",
    "二十四小时",
]


def moment(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


@pytest.mark.parametrize(("question", "start", "end"), [*ENGLISH, *CHINESE])
def test_a_named_time_is_read(question: str, start: str, end: str) -> None:
    found = time_range(question, NOW)
    assert found is not None
    assert (found.start, found.end) == (moment(start), moment(end))
    assert all(part in question for part in found.phrase.split(" … "))


@pytest.mark.parametrize("question", NO_TIME)
def test_what_names_no_time_is_left_alone(question: str) -> None:
    assert time_range(question, NOW) is None


def test_the_phrase_is_what_was_said() -> None:
    found = time_range("So what did I eat last week?", NOW)
    assert found is not None
    assert found.as_event() == {
        "phrase": "last week",
        "start": "2026-11-16T00:00:00.000000Z",
        "end": "2026-11-23T00:00:00.000000Z",
    }


@pytest.mark.parametrize(
    ("now", "question", "start"),
    [
        # A Sunday is the end of its week, and the first of a month its beginning.
        ("2026-11-22T23:59", "last week", "2026-11-09"),
        ("2026-11-22", "last weekend", "2026-11-14"),
        ("2026-11-23", "last weekend", "2026-11-21"),
        ("2026-03-31", "one month ago", "2026-02-13"),
        ("2026-01-01", "last month", "2025-12-01"),
        ("2026-01-01", "last year", "2025-01-01"),
        ("2027-01-15", "last winter", "2025-12-01"),
        ("2027-01-15", "last summer", "2026-06-01"),
        ("2024-02-29", "a year ago", "2022-08-30"),
        ("2026-01-01", "去年", "2025-01-01"),
        ("2026-03-31", "上个月", "2026-02-01"),
        ("2026-05-31", "last May", "2025-05-01"),
        ("2026-05-31", "in May", "2026-05-01"),
        ("2026-03-02", "in May", "2025-05-01"),
    ],
)
def test_at_the_edges_of_the_calendar(now: str, question: str, start: str) -> None:
    found = time_range(question, moment(now))
    assert found is not None
    assert found.start == moment(start)


def test_long_texts_and_lists_of_dates_are_not_searched() -> None:
    assert time_range("What did I do last week? " + "x" * QUESTION_CHARS_MAX, NOW) is None
    dates = [f"{day} May 2023" for day in range(1, TIMES_MAX + 2)]
    assert time_range(", ".join(dates), NOW) is None
    assert time_range(", ".join(dates[:TIMES_MAX]), NOW) is not None


PIECES = st.sampled_from(
    [case[0] for case in (*ENGLISH, *CHINESE)]
    + NO_TIME
    + ["", "0 ", "999 years ", "二十", "月", "Feb 30", "0000-01-01"]
)


@given(
    st.one_of(
        st.text(max_size=60), st.lists(PIECES, max_size=4).map(" ".join), st.lists(PIECES, max_size=4).map("".join)
    ),
    st.integers(0, 8000 * 365).map(lambda days: datetime(1960, 1, 1, tzinfo=UTC) + timedelta(days=days)),
)
@example("999 years ago", datetime(1960, 1, 1, tzinfo=UTC))
@example("999年前", datetime(1960, 1, 1, tzinfo=UTC))
def test_whatever_is_asked_it_is_no_time_or_one_that_has_begun(question: str, now: datetime) -> None:
    found = time_range(question, now)
    assert found is None or (found.start < found.end and found.start <= now and found.phrase)


@given(st.integers(0, 4000), st.sampled_from(["yesterday", "last week", "three days ago", "上周五", "昨天"]))
def test_what_is_counted_from_now_moves_with_it(days: int, question: str) -> None:
    week = timedelta(weeks=days // 7)
    here, there = time_range(question, NOW), time_range(question, NOW + week)
    assert here is not None
    assert there == TimeRange(here.start + week, here.end + week, question)
