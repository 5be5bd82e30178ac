"""Sixty stories of something that changed, and what else such people talk about: for :mod:`benchmarks.believed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
Exchange = tuple[str, str]
"""What the person said, and what the assistant replied."""


@dataclass(frozen=True, slots=True)
class Story:
    """``told`` is what was said about one thing, oldest first: the last of it holds when ``question`` is asked.

    An answer is right with any of ``right`` in it. ``outdated`` is what it must not say instead.
    """

    name: str
    language: Language
    told: tuple[Exchange, ...]
    question: str
    right: tuple[str, ...]
    outdated: tuple[str, ...]


def _en(name: str, told: tuple[Exchange, ...], question: str, right: str, outdated: str) -> Story:
    return Story(name, "en", told, question, tuple(right.split("|")), tuple(outdated.split("|")))


def _zh(name: str, told: tuple[Exchange, ...], question: str, right: str, outdated: str) -> Story:
    return Story(name, "zh", told, question, tuple(right.split("|")), tuple(outdated.split("|")))


STORIES: tuple[Story, ...] = (
    _en(
        "moved city",
        (
            ("I live in Rome, in a small flat near the river.", "Rome is a lovely place to live."),
            ("We have moved, I live in Oslo now.", "I hope you settle in well in Oslo."),
        ),
        "Which city do I live in?",
        "Oslo",
        "Rome",
    ),
    _en(
        "moved street",
        (
            ("My address is 14 Mill Lane.", "Thanks, I will keep that in mind."),
            ("I moved house last week, the new address is 82 Harbour Road.", "Congratulations on the move!"),
        ),
        "What is my address?",
        "82 Harbour|Harbour Road",
        "Mill Lane",
    ),
    _en(
        "moved office",
        (
            ("My office is on the third floor, room 312.", "Good to know."),
            ("They put my team somewhere else: my desk is in room 507 now.", "A fifth-floor view, nice."),
        ),
        "Which room is my office in?",
        "507",
        "312",
    ),
    _en(
        "changed job",
        (
            ("I work as a nurse at the children's hospital.", "That is important work."),
            ("I left the hospital; since Monday I am a tram driver.", "What a change! Enjoy the new job."),
        ),
        "What do I do for a living?",
        "tram",
        "nurse",
    ),
    _en(
        "changed employer",
        (
            ("I started at Brightwell, the insurance company.", "Good luck with the start there."),
            ("I handed in my notice at Brightwell and work for Calder Foods now.", "I hope Calder Foods suits you."),
        ),
        "Which company do I work for?",
        "Calder",
        "for Brightwell|at Brightwell",
    ),
    _en(
        "new boss",
        (
            ("My boss is called Martin, he is rather strict.", "I see, a strict boss."),
            ("Martin has retired. My new boss is Helena.", "I hope you get along with Helena."),
        ),
        "Who is my boss?",
        "Helena",
        "Martin",
    ),
    _en(
        "corrected number of guests",
        (
            ("There will be 24 guests at my birthday dinner.", "Twenty-four guests, noted."),
            ("I counted wrong: we will be 31 guests at my birthday dinner.", "Thirty-one it is."),
        ),
        "How many guests come to my birthday dinner?",
        "31|thirty-one",
        "24|twenty-four",
    ),
    _en(
        "corrected shoe size",
        (
            ("My shoe size is 41.", "Okay, size 41."),
            ("Correction: I measured again, my shoe size is 43.", "Thanks for correcting that."),
        ),
        "What is my shoe size?",
        "43",
        "41",
    ),
    _en(
        "corrected budget",
        (
            ("Our budget for the kitchen is 9,000 euros.", "That gives you some choice."),
            ("My wife reminded me that the kitchen budget is 12,500 euros.", "A bit more room then."),
        ),
        "What is our budget for the kitchen?",
        "12,500|12500|12.500",
        "9,000|9000",
    ),
    _en(
        "corrected birthday",
        (
            ("My sister Anna's birthday is on 4 May.", "I will remember Anna's birthday."),
            ("Silly me, Anna's birthday is on 14 June, 4 May is her name day.", "Good that you noticed."),
        ),
        "When is my sister's birthday?",
        "14 June|June 14",
        "on 4 May|May 4",
    ),
    _en(
        "no longer likes coffee",
        (
            ("I love coffee, I drink four cups a day.", "That is quite a lot of coffee!"),
            ("I can't stand coffee any more, these days I drink only green tea.", "Green tea is a calm choice."),
        ),
        "What do I like to drink in the morning?",
        "tea",
        "love coffee|like coffee|drink coffee",
    ),
    _en(
        "no longer likes jazz",
        (
            ("Jazz is my favourite music.", "Jazz has many great names."),
            ("I got tired of jazz. My favourite music is bluegrass now.", "Banjos and fiddles, then."),
        ),
        "What is my favourite music?",
        "bluegrass",
        "jazz",
    ),
    _en(
        "favourite colour",
        (
            ("My favourite colour is yellow.", "A cheerful colour."),
            ("I changed my mind about yellow, my favourite colour is dark green.", "Dark green is elegant."),
        ),
        "What is my favourite colour?",
        "green",
        "yellow",
    ),
    _en(
        "changed back home",
        (
            ("I live in Leeds with my brother.", "Nice that you share a home."),
            ("I moved out, I live in Bristol now.", "Enjoy Bristol!"),
            ("Bristol did not work out, I am back in Leeds for good.", "Welcome back to Leeds."),
        ),
        "Where do I live at the moment?",
        "Leeds",
        "Bristol",
    ),
    _en(
        "changed back phone",
        (
            ("I use an Android phone.", "Good choice."),
            ("I switched to an iPhone.", "How do you like it?"),
            ("The iPhone annoyed me, I returned to an Android phone.", "Back to what you know."),
        ),
        "What kind of phone do I use?",
        "Android",
        "iPhone",
    ),
    _en(
        "changed back sport",
        (
            ("I go swimming every Tuesday.", "Swimming keeps you fit."),
            ("I gave up swimming and play squash on Tuesdays.", "Squash is fast!"),
            ("My knee hurts from squash, so on Tuesdays I swim again.", "Swimming is kinder to the knee."),
        ),
        "What sport do I do on Tuesdays?",
        "swim",
        "squash",
    ),
    _en(
        "renamed cat",
        (
            ("We got a kitten and called her Biscuit.", "Biscuit is a sweet name."),
            ("The kids renamed the kitten, she is called Pixel now.", "Pixel, how modern."),
        ),
        "What is my kitten called?",
        "Pixel",
        "Biscuit",
    ),
    _en(
        "renamed boat",
        (
            ("My boat is named Sea Breeze.", "A fitting name."),
            ("I painted a new name on my boat: it is Marigold now.", "Marigold sounds friendly."),
        ),
        "What is the name of my boat?",
        "Marigold",
        "Sea Breeze",
    ),
    _en(
        "new phone number",
        (
            ("My phone number is 555 0142.", "Got it."),
            ("I have a new phone number, 555 0199. The old one is dead.", "I will use the new one."),
        ),
        "What is my phone number?",
        "0199",
        "0142",
    ),
    _en(
        "new email",
        (
            ("My email address is tom@oldmail.example.", "Thanks."),
            ("Please use my new email address, tom.k@newpost.example.", "I will."),
        ),
        "What is my email address?",
        "newpost",
        "oldmail",
    ),
    _en(
        "broke up",
        (
            ("My girlfriend is called Sofia.", "Sofia is a pretty name."),
            ("Sofia and I broke up, I am single again.", "I am sorry to hear that."),
        ),
        "Am I in a relationship?",
        "single|broke up|not in a rel|no longer|separated",
        "your girlfriend is|you are in a rel|you're in a rel",
    ),
    _en(
        "new partner",
        (
            ("I am going out with Daniel from the choir.", "How nice."),
            ("It is over with Daniel. My boyfriend is Marek now.", "I hope you are happy with Marek."),
        ),
        "Who is my boyfriend?",
        "Marek",
        "Daniel",
    ),
    _en(
        "called off",
        (
            ("I am engaged to Priya, the wedding is in spring.", "Congratulations!"),
            ("Priya and I called the wedding off and stay friends.", "That must have been a hard decision."),
        ),
        "Am I getting married to Priya?",
        "called off|called it off|called the wedding off|not getting|no longer|no,|no.|friends",
        "yes",
    ),
    _en(
        "changed diet vegetarian",
        (
            ("I eat meat almost every day, steak above all.", "Steak it is."),
            ("I have become a vegetarian, no meat for me any more.", "There are many good vegetarian dishes."),
        ),
        "What kind of diet do I follow?",
        "vegetarian",
        "steak",
    ),
    _en(
        "changed diet fish",
        (
            ("I am vegan.", "I will suggest vegan dishes."),
            ("I stopped being vegan: I eat fish and eggs again.", "That widens the menu."),
        ),
        "Do I eat fish?",
        "yes|you eat fish|you do|eat fish and eggs",
        "vegan, so|you don't eat|you do not eat|no,",
    ),
    _en(
        "allergy",
        (
            ("I am allergic to peanuts.", "I will leave peanuts out."),
            ("The doctor tested me: it is not peanuts, I am allergic to sesame.", "Good to know it exactly."),
        ),
        "What am I allergic to?",
        "sesame",
        "allergic to peanuts",
    ),
    _en(
        "rescheduled dentist",
        (
            ("My dentist appointment is on Thursday at nine.", "Do not forget it."),
            ("The dentist rescheduled me to Friday at four.", "Friday at four, then."),
        ),
        "When is my dentist appointment?",
        "Friday",
        "Thursday",
    ),
    _en(
        "rescheduled flight",
        (
            ("My flight to Madrid leaves at 7:15.", "That is early."),
            ("The airline changed my flight to Madrid, it leaves at 18:40.", "Then you can sleep in."),
        ),
        "When does my flight to Madrid leave?",
        "18:40|6:40",
        "7:15",
    ),
    _en(
        "rescheduled party",
        (
            ("Our summer party is on 12 August in the garden.", "I hope for sunshine."),
            ("Because of the rain we postponed the summer party to 26 August.", "Fingers crossed."),
        ),
        "When is our summer party?",
        "26 August|August 26|26th",
        "12 August|August 12|12th",
    ),
    _en(
        "new car",
        (
            ("I drive a red Fiat Panda.", "A handy car."),
            ("I sold the Fiat and bought a blue Volvo.", "Enjoy the Volvo!"),
        ),
        "What car do I drive?",
        "Volvo",
        "Fiat",
    ),
    _en(
        "new school",
        (
            ("My son Leo goes to Oakfield School.", "I hope he likes it."),
            ("Leo changed schools, he is at St Brendan's now.", "A fresh start for Leo."),
        ),
        "Which school does my son go to?",
        "Brendan",
        "Oakfield",
    ),
    _en(
        "changed subject",
        (
            ("My daughter Mia studies law in Vienna.", "A demanding subject."),
            ("Mia dropped out of law and studies marine biology now.", "The sea is fascinating."),
        ),
        "What does my daughter study?",
        "marine|biology",
        "studies law",
    ),
    _en(
        "wifi password",
        (
            ("The wifi password at home is tulip-44.", "I will remember it."),
            ("I changed the wifi password to walnut-93.", "Noted."),
        ),
        "What is my wifi password?",
        "walnut",
        "tulip",
    ),
    _en(
        "instrument",
        (
            ("I am learning the piano.", "How is it going?"),
            ("I gave the piano away and took up the cello instead.", "The cello has a warm sound."),
        ),
        "Which instrument am I learning?",
        "cello",
        "piano",
    ),
    _en(
        "language course",
        (
            ("I am taking an evening class in Portuguese.", "Boa sorte!"),
            ("The Portuguese class was cancelled, so I am learning Finnish instead.", "A language with many cases."),
        ),
        "Which language am I learning?",
        "Finnish",
        "Portuguese",
    ),
    _en(
        "deadline",
        (
            ("Our project deadline is the end of September.", "That is close."),
            ("Good news: the project deadline was moved to 15 November.", "That gives you time."),
        ),
        "When is our project deadline?",
        "November",
        "September",
    ),
    _en(
        "number of children",
        (
            ("We have two children.", "A lively home, I guess."),
            ("Our baby was born yesterday, so now we have three children!", "Congratulations to all five of you!"),
        ),
        "How many children do I have?",
        "three|3",
        "two|2 child",
    ),
    _en(
        "morning run",
        (
            ("I run five kilometres each morning.", "Well done."),
            ("I have worked up to eight kilometres each morning.", "Great progress!"),
        ),
        "How far do I run each morning?",
        "eight|8",
        "five|5 k",
    ),
    _en(
        "medicine",
        (
            ("My doctor put me on 50 mg of the blood pressure pill.", "Take it regularly."),
            ("The doctor lowered my blood pressure pill to 25 mg.", "A smaller dose, good."),
        ),
        "What dose of the blood pressure pill do I take?",
        "25",
        "50",
    ),
    _en(
        "changed back team",
        (
            ("I support Rovers.", "A club with history."),
            ("I had enough of Rovers and support United now.", "A new scarf, then."),
            ("I could not do it, I am a Rovers fan again.", "Old love does not rust."),
        ),
        "Which football club do I support?",
        "Rovers",
        "United",
    ),
    _zh(
        "搬家",
        (("我住在杭州。", "杭州很美。"), ("我搬家了，现在住在成都。", "成都的生活很舒服。")),
        "我住在哪个城市？",
        "成都",
        "杭州",
    ),
    _zh(
        "新地址",
        (
            ("我的收件地址是中山路18号。", "好的，记住了。"),
            ("以后快递请寄到解放路56号，那是我的新地址。", "好的，换成新地址。"),
        ),
        "我的收件地址是什么？",
        "解放路",
        "中山路",
    ),
    _zh(
        "换工作",
        (("我是一名小学老师。", "老师很辛苦。"), ("我辞职了，现在做摄影师。", "祝你新工作顺利。")),
        "我现在做什么工作？",
        "摄影",
        "老师",
    ),
    _zh(
        "换公司",
        (
            ("我在远航科技上班。", "听起来不错。"),
            ("我离开了远航科技，上个月加入了青禾食品。", "希望你喜欢新公司。"),
        ),
        "我在哪家公司上班？",
        "青禾",
        "在远航",
    ),
    _zh(
        "更正人数",
        (("周末聚餐一共有8个人。", "好的，8个人。"), ("我数错了，周末聚餐是11个人。", "好的，改成11个人。")),
        "周末聚餐有几个人？",
        "11|十一",
        "8个|八个",
    ),
    _zh(
        "更正身高",
        (("我的身高是172厘米。", "知道了。"), ("更正一下，今天重新量了，身高是175厘米。", "好的，已更正。")),
        "我的身高是多少？",
        "175",
        "172",
    ),
    _zh(
        "不喜欢咖啡",
        (
            ("我最喜欢喝咖啡。", "咖啡很提神。"),
            ("我不再喝咖啡了，现在只喝普洱茶。", "普洱茶也很好。"),
        ),
        "我平时喜欢喝什么？",
        "普洱|茶",
        "喜欢喝咖啡|喝咖啡",
    ),
    _zh(
        "最喜欢的颜色",
        (("我最喜欢的颜色是蓝色。", "蓝色很安静。"), ("我现在最喜欢的颜色是橙色，蓝色看腻了。", "橙色很温暖。")),
        "我最喜欢什么颜色？",
        "橙",
        "蓝",
    ),
    _zh(
        "搬回去",
        (
            ("我住在青岛。", "海边真好。"),
            ("我搬到西安住了。", "西安历史悠久。"),
            ("我又搬回青岛了，还是海边舒服。", "欢迎回到海边。"),
        ),
        "我现在住在哪里？",
        "青岛",
        "西安",
    ),
    _zh(
        "换回运动",
        (
            ("我每周六打羽毛球。", "坚持运动很好。"),
            ("我不打羽毛球了，周六改成爬山。", "山里空气好。"),
            ("爬山太累，周六又打回羽毛球了。", "还是熟悉的运动好。"),
        ),
        "我周六做什么运动？",
        "羽毛球",
        "爬山",
    ),
    _zh(
        "小狗改名",
        (("我家小狗叫豆豆。", "真可爱的名字。"), ("孩子给小狗改了名，现在叫闪电。", "闪电，好威风。")),
        "我家小狗叫什么名字？",
        "闪电",
        "豆豆",
    ),
    _zh(
        "新手机号",
        (
            ("我的手机号是13800001111。", "记下了。"),
            ("我换手机号了，新号码是13900002222。", "好的，用新号码。"),
        ),
        "我的手机号是多少？",
        "13900002222",
        "13800001111",
    ),
    _zh(
        "分手",
        (("我的女朋友叫小雅。", "祝你们幸福。"), ("我和小雅分手了，现在单身。", "希望你慢慢好起来。")),
        "我现在有女朋友吗？",
        "没有|单身|分手",
        "女朋友是|女朋友叫|有女朋友，",
    ),
    _zh(
        "改吃素",
        (("我特别爱吃红烧肉。", "红烧肉很香。"), ("我开始吃素了，不再吃肉。", "吃素也可以很丰富。")),
        "我现在吃肉吗？",
        "不吃|不再|素",
        "爱吃红烧肉",
    ),
    _zh(
        "改会议时间",
        (("项目会议定在周二上午十点。", "好的。"), ("项目会议改到周四下午两点了。", "好的，周四下午两点。")),
        "项目会议是什么时候？",
        "周四|星期四",
        "周二|星期二",
    ),
    _zh(
        "换车次",
        (("我回家的火车是G102次。", "一路平安。"), ("我改签了，回家坐G158次火车。", "好的，G158次。")),
        "我回家坐哪一次火车？",
        "G158",
        "G102",
    ),
    _zh(
        "换车",
        (("我开一辆白色的丰田。", "丰田很耐用。"), ("丰田卖了，我现在开一辆比亚迪。", "恭喜换新车。")),
        "我开什么车？",
        "比亚迪",
        "丰田",
    ),
    _zh(
        "孩子转学",
        (("我儿子在实验小学上学。", "希望他喜欢学校。"), ("儿子转学了，现在在育英小学。", "新学校新开始。")),
        "我儿子在哪个学校上学？",
        "育英",
        "实验小学",
    ),
    _zh(
        "学乐器",
        (("我在学吉他。", "加油！"), ("我不学吉他了，改学古筝。", "古筝很好听。")),
        "我在学什么乐器？",
        "古筝",
        "吉他",
    ),
    _zh(
        "宠物数量",
        (("我养了两只猫。", "一定很热闹。"), ("昨天又收养了一只，我现在有三只猫。", "恭喜新成员。")),
        "我养了几只猫？",
        "三|3",
        "两只|2只|二只",
    ),
)

DISTRACTORS: dict[Language, tuple[Exchange, ...]] = {
    "en": (
        ("How long do I boil eggs?", "About nine minutes for hard ones."),
        ("My neighbour practises the trumpet at night.", "That must be tiring. Have you talked to him?"),
        ("What is a good book about mountains?", "Try The Living Mountain by Nan Shepherd."),
        ("My friend Carla lives in Lisbon.", "Lisbon is a great place to visit friends."),
        ("Can you explain what a mortgage is?", "It is a loan that is secured by a house."),
        ("My brother works as a baker.", "Then you surely get fresh bread."),
        ("The bus was late again this morning.", "That is annoying."),
        ("I watched a film about penguins.", "Penguins are remarkable birds."),
        ("My grandmother's favourite colour was violet.", "A colour of many gardens."),
        ("How do I remove a wine stain?", "Put salt on it, then cold water."),
        ("I need to buy a present for my colleague.", "A plant always works."),
        ("The garden fence needs painting.", "Wait for a dry week."),
        ("What does the word serendipity mean?", "A happy find by chance."),
        ("My uncle drives a lorry across Poland.", "He sees a lot of road."),
        ("I could not sleep well last night.", "Try to leave the phone outside the bedroom."),
        ("Which vegetables can I plant in March?", "Peas, spinach and radishes."),
        ("My aunt has two parrots, they are called Fred and Ginger.", "A musical pair!"),
        ("The meeting on the annual report took three hours.", "That is long for one report."),
        ("How many kilometres is a marathon?", "42.195 kilometres."),
        ("I lost my umbrella on the train.", "Ask the lost property office."),
        ("My cousin's phone number has too many sevens.", "Easy to remember, at least."),
        ("Please write a short poem about autumn.", "Leaves drift down, gold on grey, a wind takes summer away."),
        ("We had pancakes for dinner.", "A good choice at any time."),
        ("What is the capital of Mongolia?", "Ulaanbaatar."),
        ("My old school teacher wrote me a letter.", "How kind of her."),
        ("The washing machine makes a strange noise.", "Check whether a coin is caught in the drum."),
        ("I read that bees can count to four.", "Yes, experiments suggest so."),
        ("Our neighbours' wedding was loud and wonderful.", "It sounds like fun."),
        ("Is it healthy to skip breakfast?", "For many people it does no harm."),
        ("I ordered new curtains for the bedroom.", "What colour did you choose?"),
    ),
    "zh": (
        ("鸡蛋要煮几分钟？", "水开后大约八分钟。"),
        ("楼上的邻居晚上总是弹琴。", "可以和他商量一下时间。"),
        ("推荐一本关于山的书。", "可以读《雪豹》。"),
        ("我的朋友小林住在广州。", "广州的早茶很有名。"),
        ("房贷是什么意思？", "就是用房子作抵押的贷款。"),
        ("我哥哥是面包师。", "那你一定常吃新鲜面包。"),
        ("今天早上公交车又晚点了。", "真让人着急。"),
        ("我看了一部关于企鹅的电影。", "企鹅很有意思。"),
        ("衣服上的红酒渍怎么洗？", "先撒盐，再用冷水洗。"),
        ("同事过生日，送什么礼物好？", "送一盆绿植吧。"),
        ("昨晚没睡好。", "睡前少看手机。"),
        ("三月可以种什么菜？", "菠菜和萝卜都可以。"),
        ("姑姑养了两只鹦鹉。", "一定很热闹。"),
        ("马拉松有多少公里？", "42.195公里。"),
        ("我把雨伞忘在地铁上了。", "可以问失物招领处。"),
        ("写一句关于秋天的诗。", "一叶知秋，风过无声。"),
        ("蒙古的首都是哪里？", "乌兰巴托。"),
        ("洗衣机有奇怪的声音。", "看看里面是不是有硬币。"),
        ("不吃早饭健康吗？", "因人而异。"),
        ("我给卧室订了新窗帘。", "选了什么颜色？"),
    ),
}
DISTRACTORS_EACH = 10


def distractors_of(number: int, language: Language) -> tuple[Exchange, ...]:
    """Return the distractors of the story with that number; stories side by side have others."""
    pool = DISTRACTORS[language]
    return tuple(pool[(7 * number + step) % len(pool)] for step in range(DISTRACTORS_EACH))
