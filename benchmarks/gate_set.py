"""Facts told in passing and questions asked later, in English and Chinese: what a gate must tell apart.

Each fact is one exchange as in a chat, a summary as the summarizer would write it, and one question that only this fact
answers, often in other words. Small talk answers no question. The unanswerable questions ask for what was never told,
sometimes close to what was. All sentences were written for this set.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One exchange, its summary, and the question it answers; small talk has an empty question."""

    user: str
    assistant: str
    summary: str
    question: str = ""


ENGLISH = (
    Fact(
        "Could you suggest a brunch menu? My sister Ingrid is allergic to walnuts, so no nuts please.",
        "Of course: shakshuka, a citrus salad and ricotta pancakes are all free of nuts.",
        "The user's sister Ingrid is allergic to walnuts.",
        "What food should I avoid when I cook for my sister?",
    ),
    Fact(
        "We finally picked a name for the greyhound we adopted. He is called Pickle now.",
        "Pickle is a wonderful name for a greyhound!",
        "The user adopted a greyhound and named him Pickle.",
        "What's my dog's name?",
    ),
    Fact(
        "I start at the observatory on the third of March, as a data engineer for the spectrograph.",
        "Congratulations on the new position at the observatory.",
        "The user starts a job as a data engineer at an observatory on 3 March.",
        "When does my new job begin?",
    ),
    Fact(
        "Fix this sentence for the landlord: the heater in flat 4B is broke since Tuesday.",
        "'The heater in flat 4B has been broken since Tuesday.'",
        "The user lives in flat 4B, where the heater broke on a Tuesday.",
        "Which flat do I live in?",
    ),
    Fact(
        "I parked on level minus two, row F, next to the blue pillar. Remind me later.",
        "Noted: level -2, row F, by the blue pillar.",
        "The user parked the car on level -2, row F, next to the blue pillar.",
        "Where did I leave the car?",
    ),
    Fact(
        "My gym locker combination is 27-4-33, I keep forgetting it.",
        "I will keep it in mind: 27-4-33.",
        "The user's gym locker combination is 27-4-33.",
        "How do I open my locker at the gym?",
    ),
    Fact(
        "For our tenth anniversary Tomas and I want to walk the Camino from Porto.",
        "The coastal route from Porto takes about two weeks and is lovely in May.",
        "The user and Tomas plan to walk the Camino from Porto for their tenth anniversary.",
        "What are we planning for our wedding anniversary?",
    ),
    Fact(
        "The doctor moved me from 50 to 75 micrograms of levothyroxine last week.",
        "Take it on an empty stomach, and have your levels checked again in six weeks.",
        "The user's levothyroxine dose was raised from 50 to 75 micrograms.",
        "How much thyroid medication do I take now?",
    ),
    Fact(
        "I am reading The Left Hand of Darkness for the book club, we meet on Thursday at Wren's.",
        "It is a great choice. Would you like some questions for the discussion?",
        "The user's book club reads The Left Hand of Darkness and meets on Thursday at Wren's.",
        "Which novel is my reading group on at the moment?",
    ),
    Fact(
        "My daughter Mei turns seven in October and she wants a telescope.",
        "A small tabletop Dobsonian would suit a seven-year-old very well.",
        "The user's daughter Mei turns seven in October and wants a telescope.",
        "What present would make my daughter happy?",
    ),
    Fact(
        "Our production database is PostgreSQL 14 on a machine called heron. No restart before Friday!",
        "Then plan the minor upgrade for Friday evening or later.",
        "The user's production database is PostgreSQL 14 on the host heron; no restart before Friday.",
        "On which server does our prod database run?",
    ),
    Fact(
        "I can't stand coriander, it tastes of soap to me.",
        "That is genetic for many people. Parsley or mint can take its place.",
        "The user dislikes coriander because it tastes of soap.",
        "Which herb should you leave out of my recipes?",
    ),
    Fact(
        "Write to Professor Okafor: I need two more weeks for chapter three of my thesis on peat bogs.",
        "Dear Professor Okafor, may I ask for two more weeks to finish chapter three?",
        "The user's thesis on peat bogs, supervised by Professor Okafor, needs two more weeks.",
        "What is my dissertation about?",
    ),
    Fact(
        "My flight to Reykjavik leaves at 6:40, so I have to get up at three.",
        "With a 6:40 departure, leaving home by four should be safe.",
        "The user flies to Reykjavik at 6:40 in the morning.",
        "Where am I flying to?",
    ),
    Fact(
        "The bakery wants 340 euros for the lemon cake, which is over what we set aside for it.",
        "You might ask for two tiers instead of three.",
        "A bakery asks 340 euros for the user's lemon cake, more than planned.",
        "How much would the cake cost?",
    ),
    Fact(
        "I play the viola, badly, in an amateur quartet. We practise on Sundays.",
        "Weekly practice with others is the best way to improve.",
        "The user plays the viola in an amateur quartet that practises on Sundays.",
        "Which instrument do I play?",
    ),
    Fact(
        "Since the accident I can only use my left hand for typing, so keep answers short.",
        "Understood, I will be brief.",
        "Since an accident the user types with the left hand only and wants short answers.",
        "Why did I ask you to be brief?",
    ),
    Fact(
        "Our wifi at the cabin is called foxglove and the password is tansy-bolete-91.",
        "Got it: network foxglove, password tansy-bolete-91.",
        "The wifi at the user's cabin is foxglove with the password tansy-bolete-91.",
        "How do I get online at the cabin?",
    ),
    Fact(
        "I support Union Berlin, please don't tell my brother-in-law, he is a Hertha man.",
        "Your secret is safe with me.",
        "The user supports Union Berlin; the user's brother-in-law supports Hertha.",
        "Who is my favourite football team?",
    ),
    Fact(
        "We paint the nursery in sage green because we don't know yet whether it's a boy or a girl.",
        "Sage green with warm white trim is calm and lovely.",
        "The user paints the nursery sage green and expects a baby.",
        "Which colour did we choose for the baby's room?",
    ),
    Fact(
        "My car is a 2009 Saab 9-3 and the garage says that the clutch is gone.",
        "A new clutch for that model is usually a full day of work.",
        "The user drives a 2009 Saab 9-3 whose clutch has to be replaced.",
        "What is wrong with my car?",
    ),
    Fact(
        "I grew up in Valparaíso, so I still count in Spanish.",
        "Many people count in their first language all their lives.",
        "The user grew up in Valparaíso and counts in Spanish.",
        "In which city did I spend my childhood?",
    ),
    Fact("Hi there, how are you today?", "I'm well, thank you. What can I do for you?", "The user said hello."),
    Fact(
        "Write a regular expression that matches ISO dates.",
        r"`\d{4}-\d{2}-\d{2}` matches dates such as 2024-05-01.",
        "The user asked for a regular expression for ISO dates.",
    ),
    Fact(
        "What is the capital of Mongolia?",
        "The capital of Mongolia is Ulaanbaatar.",
        "The user asked for the capital of Mongolia: Ulaanbaatar.",
    ),
    Fact("Thanks, that was helpful!", "You're welcome! Anything else?", "The user thanked the assistant."),
    Fact(
        "Explain the difference between a list and a tuple in Python.",
        "A list can be changed after it was made, a tuple cannot.",
        "The assistant explained lists and tuples in Python.",
    ),
    Fact(
        "Tell me a joke about penguins.",
        "Why don't penguins fly? Because they're not tall enough to be pilots.",
        "The assistant told a joke about penguins.",
    ),
)

ENGLISH_UNANSWERABLE = (
    "What is my passport number?",
    "Which university did my brother go to?",
    "When is my dentist appointment?",
    "What's the name of my cat?",
    "How tall am I?",
    "Which bank do I use?",
    "Summarise the plot of Hamlet in one line.",
    "How do I reverse a string in JavaScript?",
    "What did my neighbor say about the fence?",
    "Which running shoes did I buy?",
)

CHINESE = (
    Fact(
        "帮我想个周末的菜单吧，我妈妈血糖高，医生不让她吃甜的。",
        "可以做清蒸鲈鱼、凉拌木耳和杂粮饭，都适合控糖。",
        "用户的妈妈血糖高，不能吃甜食。",
        "给我妈做饭要注意些什么？",
    ),
    Fact(
        "我们家的橘猫叫年糕，今天又把花瓶打碎了。",
        "年糕真调皮，可以把花瓶放到高一点的柜子里。",
        "用户养了一只橘猫，名叫年糕。",
        "你还记得我的猫叫什么名字吗？",
    ),
    Fact(
        "我下周一去苏州的设计院报到，岗位是结构工程师。",
        "恭喜入职！记得带好身份证和学历证书。",
        "用户下周一到苏州的设计院报到，任结构工程师。",
        "我的新工作在哪个城市？",
    ),
    Fact(
        "高铁票买好了，G1027次，五号车厢12F。",
        "好的，G1027次，五号车厢12F座。",
        "用户买了G1027次高铁票，座位是五号车厢12F。",
        "我坐哪趟车？",
    ),
    Fact(
        "我对青霉素过敏，小时候打针差点出事。",
        "就医时一定要告诉医生您对青霉素过敏。",
        "用户对青霉素过敏。",
        "看病的时候我应该提醒医生什么？",
    ),
    Fact(
        "女儿这学期开始学古筝，每周三晚上上课。",
        "古筝入门建议每天练习二十分钟。",
        "用户的女儿在学古筝，每周三晚上上课。",
        "我女儿学的是什么乐器？",
    ),
    Fact(
        "结婚纪念日是十一月九号，我想偷偷订那家云南菜。",
        "可以提前一周订一个靠窗的位置。",
        "用户的结婚纪念日是11月9日，想订一家云南菜馆。",
        "我和太太的纪念日是哪天？",
    ),
    Fact(
        "公司的测试服务器地址是10.8.3.21，登录要先连VPN。",
        "记下了：先连VPN，再登录10.8.3.21。",
        "用户公司的测试服务器是10.8.3.21，需先连VPN。",
        "测试环境的机器IP是多少？",
    ),
    Fact(
        "我最近在读《三体》第二部，每晚睡前看一章。",
        "黑暗森林的部分非常精彩，祝您读得愉快。",
        "用户正在读《三体》第二部。",
        "我最近在看什么书？",
    ),
    Fact(
        "爷爷今年八十八岁，下个月在老家绍兴办寿宴。",
        "八十八岁是米寿，寓意很好。",
        "用户的爷爷今年88岁，下个月在绍兴办寿宴。",
        "爷爷的生日在哪里庆祝？",
    ),
    Fact(
        "我不吃香菜，一口都不行。",
        "好的，以后推荐的菜都不放香菜。",
        "用户不吃香菜。",
        "点菜的时候有什么我不能接受的？",
    ),
    Fact(
        "装修预算是二十五万，已经花了十八万，厨房还没动工。",
        "剩下七万，建议优先保证水电和橱柜。",
        "用户的装修预算是25万元，已花18万元，厨房尚未动工。",
        "装修一共准备花多少钱？",
    ),
    Fact(
        "我论文的题目是城市湿地对候鸟迁徙的影响，导师姓欧阳。",
        "这个题目很有意义，可以从遥感数据入手。",
        "用户的论文研究城市湿地对候鸟迁徙的影响，导师姓欧阳。",
        "我的毕业论文写的是什么方向？",
    ),
    Fact(
        "车停在医院东门地下二层C区108。",
        "好的，地下二层C区108号车位。",
        "用户把车停在医院东门地下二层C区108号。",
        "我把车停哪儿了？",
    ),
    Fact(
        "上个月我把膝盖摔伤了，医生让我三个月内别跑步。",
        "可以先做一些游泳或者上肢训练。",
        "用户膝盖受伤，医生要求三个月内不要跑步。",
        "为什么我现在不能去跑马拉松？",
    ),
    Fact(
        "家里路由器的密码改成了xiangrikui2024。",
        "已记住，新密码是xiangrikui2024。",
        "用户家中路由器的新密码是xiangrikui2024。",
        "我家的无线网怎么连？",
    ),
    Fact(
        "我是从小在哈尔滨长大的，来深圳以后总觉得没有冬天。",
        "深圳的冬天确实很短，一月份会凉快一些。",
        "用户在哈尔滨长大，现在住在深圳。",
        "我的老家是哪里？",
    ),
    Fact(
        "儿子的班主任姓耿，家长会定在周五下午四点。",
        "周五下午四点，记得提前请假。",
        "用户儿子的班主任姓耿，家长会在周五下午四点。",
        "家长会是什么时候？",
    ),
    Fact(
        "我打算用那笔年终奖换一台富士相机，主要拍街头。",
        "富士的定焦机很适合街拍。",
        "用户打算用年终奖买一台富士相机拍街头。",
        "奖金我想用来买什么？",
    ),
    Fact(
        "阳台上种了三盆薄荷和一棵柠檬树，柠檬树总是掉叶子。",
        "柠檬树喜欢阳光，浇水不要太勤。",
        "用户阳台上种了薄荷和一棵掉叶子的柠檬树。",
        "我养的哪种植物长得不好？",
    ),
    Fact(
        "周六要和大学室友老温去爬武功山，帐篷他带。",
        "武功山夜里风大，记得带防风外套。",
        "用户周六和大学室友老温去爬武功山，老温带帐篷。",
        "周末我跟谁一起出去？",
    ),
    Fact(
        "我支持的球队是山东泰山，昨晚又输了。",
        "别灰心，赛季还很长。",
        "用户支持山东泰山队。",
        "我喜欢哪支足球队？",
    ),
    Fact("你好，今天过得怎么样？", "我很好，谢谢！有什么可以帮您？", "用户打了招呼。"),
    Fact(
        "帮我写一个匹配手机号的正则表达式。",
        r"可以用 `1[3-9]\d{9}` 匹配大陆手机号。",
        "用户要了一个匹配手机号的正则表达式。",
    ),
    Fact("澳大利亚的首都是哪里？", "澳大利亚的首都是堪培拉。", "用户问澳大利亚的首都：堪培拉。"),
    Fact("谢谢你，帮了大忙。", "不客气，还有别的问题吗？", "用户表示感谢。"),
    Fact("讲个关于企鹅的笑话。", "企鹅为什么不怕冷？因为它们自带燕尾服。", "助手讲了一个企鹅的笑话。"),
    Fact(
        "Python里列表和元组有什么区别？",
        "列表可以修改，元组不能修改。",
        "助手解释了Python中列表和元组的区别。",
    ),
)

CHINESE_UNANSWERABLE = (
    "我的护照号码是多少？",
    "我哥哥在哪所大学读书？",
    "我什么时候去看牙医？",
    "我的狗叫什么？",
    "我的身高是多少？",
    "我用的是哪家银行？",
    "用一句话概括《哈姆雷特》的情节。",
    "怎么用JavaScript反转字符串？",
    "邻居上次跟我抱怨了什么？",
    "我买的跑鞋是什么牌子？",
)
