"""Every text of the page, by language. A new language is one more top-level key.

All languages have the same keys, and each text the same placeholders; a test holds that.
Texts are Markdown; what is filled in has to be escaped (`legible.plain`) by whoever fills it in.
"""

from __future__ import annotations

from collections.abc import Sequence

UI_TEXT: dict[str, dict[str, str]] = {
    "en": {
        "language_name": "English",
        "language": "Language",
        "page_title": "OpenPersistentMemory",
        "tagline": "Chat with a memory that lasts",
        "new_chat": "New chat",
        "conversations": "Conversations",
        "conversations_none": "Your conversations will be listed here.",
        "conversations_more": "Show older",
        "conversation_untitled": "Untitled",
        "conversation_line": "{turns} turns · {when}",
        "identity": "You and this conversation",
        "user_id": "User id",
        "user_id_help": "Memories belong to this id. Whoever uses the same id shares them.",
        "user_id_empty": "The user id is empty. Type an id; until then **{kept}** stays in use.",
        "conversation_id": "Conversation id",
        "conversation_id_help": "Type an id to open that conversation, or to begin one under your own name.",
        "conversation_id_empty": "The conversation id is empty. Type an id, or press *New chat*; "
        "until then **{kept}** stays open.",
        "memory_settings": "Memory settings",
        "answer_settings": "Answer settings",
        "recent_turns": "Recent turns",
        "recent_turns_help": "How many of this conversation's last turns the model always sees in full.",
        "retrieve_k": "Replayed",
        "retrieve_k_help": "How many older exchanges, at most, are shown to the model word by word. "
        "Other memories that were kept are given as summaries.",
        "candidate_n": "Candidates",
        "candidate_n_help": "How many memories, at most, the search proposes before the gate looks at them.",
        "gate_keep_max": "Kept at most",
        "gate_keep_max_help": "How many candidates, at most, the gate may keep.",
        "use_gate": "Gate",
        "use_gate_help": "Drop the candidates that have nothing to do with your message. "
        "Off: everything that was found is kept.",
        "use_rerank": "Rerank",
        "use_rerank_help": "Let the chat model choose which memories are replayed. "
        "Off: the most similar ones are. One model call less.",
        "temperature": "Temperature",
        "temperature_help": "0: the same question gets much the same answer. Higher: more varied.",
        "max_tokens": "Longest answer, in tokens",
        "max_tokens_help": "The answer ends after this many tokens. Empty: the model decides.",
        "max_tokens_empty": "model decides",
        "clear_ui": "Clear UI only",
        "clear_ui_help": "Empty this page. The conversation and all memories stay as they are.",
        "cleared": "Only the page was cleared. The conversation and its memories are untouched.",
        "show_again": "Show the conversation again",
        "backend_line": "{address}",
        "backend_model_line": "{model}  \n{address}",
        "chat_placeholder": "Message OpenPersistentMemory",
        "empty_title": "What should I remember?",
        "empty_hint": "Tell me something in this chat, and ask for it in another one, days later. "
        "Under each answer you can see which memories it used.",
        "suggestion_1": "My name is Ada, and I am allergic to peanuts.",
        "suggestion_2": "What do you know about me?",
        "suggestion_3": "What did we talk about last time?",
        "thinking": "Looking through memory and thinking … {seconds} s",
        "writing": "Writing …",
        "stop": "Stop",
        "stopped": "Stopped. What was written so far is kept.",
        "finish_length": "The answer reached the length limit.",
        "finish_early": "This answer ended early ({reason}).",
        "no_text": "The model ended without writing anything.",
        "turns_limited": "The newest {count} turns are shown. Older ones are remembered all the same.",
        "history_used": "History used · {replayed} replayed · {summaries} summarised",
        "history_none": "No earlier memory was used.",
        "replayed": "Replayed",
        "summarised": "Summary",
        "memory_line": "{when} · score {score} · turn {turn}",
        "memory_other_conversation": "conversation {conversation}",
        "memory_this_conversation": "this conversation",
        "score_none": "–",
        "you": "You",
        "assistant": "Assistant",
        "times_are_local": "Times are yours ({zone}). The score is the similarity to your message.",
        "memory_degraded": "Memory did not work in full for this answer.",
        "retry": "Try again",
        "edit": "Edit message",
        "request_id": "Request id: `{request_id}`",
        "service_said": "The service says: {said}",
        "settings_wrong": "A setting is malformed",
        "error_unreachable": "The service cannot be reached at {address}.",
        "error_unreachable_fix": "Start it, or set `BACKEND_URL` to its address and restart this page.",
        "error_silent": "The service at {address} does not answer in time.",
        "error_silent_fix": "It may be busy. Wait a moment and try again; if it stays silent, look at its log.",
        "error_bad_request": "The service did not accept the request.",
        "error_bad_request_field": "The service did not accept the field {field}.",
        "error_bad_request_fix": "Change the value and try again.",
        "error_not_authorized": "The service wants a valid key.",
        "error_not_authorized_fix": "Set `BACKEND_API_KEY` to a key of the service and restart this page.",
        "error_too_busy": "The service is at its limit.",
        "error_too_busy_fix": "Wait a moment and try again.",
        "error_chat_down": "The chat model behind the service cannot be reached.",
        "error_chat_down_fix": "The service itself is running. Start the chat endpoint, "
        "or correct the service's `LLM_BASE_URL`.",
        "error_chat_slow": "The chat model behind the service did not answer in time.",
        "error_chat_slow_fix": "It may be loading or overloaded. Try again in a moment, "
        "or look at the service's chat endpoint (`LLM_BASE_URL`).",
        "error_broken": "The answer broke off.",
        "error_broken_fix": "What had come is kept on the page. Try again for a whole answer.",
        "error_unreadable": "What answers at {address} does not speak this page's language.",
        "error_unreadable_fix": "Check that `BACKEND_URL` points at the OpenPersistentMemory service.",
        "error_failed": "The service ran into a fault.",
        "error_failed_fix": "Try again. If it happens again, the request id finds the cause in its log.",
    },
    "zh": {
        "language_name": "中文",
        "language": "语言",
        "page_title": "OpenPersistentMemory",
        "tagline": "拥有持久记忆的对话",
        "new_chat": "新对话",
        "conversations": "对话列表",
        "conversations_none": "你的对话会列在这里。",
        "conversations_more": "显示更早的对话",
        "conversation_untitled": "无标题",
        "conversation_line": "{turns} 轮 · {when}",
        "identity": "用户与当前对话",
        "user_id": "用户 ID",
        "user_id_help": "记忆归属于这个 ID；使用相同 ID 的人共享同一份记忆。",
        "user_id_empty": "用户 ID 不能为空。请输入一个 ID；在此之前继续使用 **{kept}**。",
        "conversation_id": "对话 ID",
        "conversation_id_help": "输入 ID 可打开已有对话，也可用自定的名称开始一段新对话。",
        "conversation_id_empty": "对话 ID 不能为空。请输入一个 ID，或点击“新对话”；在此之前仍停留在 **{kept}**。",
        "memory_settings": "记忆设置",
        "answer_settings": "回答设置",
        "recent_turns": "最近轮数",
        "recent_turns_help": "模型始终能逐字看到的、本对话最近的轮数。",
        "retrieve_k": "重放数量",
        "retrieve_k_help": "最多有多少段更早的对话会逐字提供给模型；其余保留下来的记忆以摘要形式提供。",
        "candidate_n": "候选数量",
        "candidate_n_help": "在筛选之前，检索最多提出多少条记忆。",
        "gate_keep_max": "最多保留",
        "gate_keep_max_help": "筛选最多可以保留多少条候选记忆。",
        "use_gate": "筛选",
        "use_gate_help": "去掉与你的消息无关的候选记忆。关闭后，检索到的全部保留。",
        "use_rerank": "重排",
        "use_rerank_help": "由聊天模型决定重放哪些记忆。关闭后，重放最相似的记忆，少一次模型调用。",
        "temperature": "温度",
        "temperature_help": "0：同样的问题得到大致相同的回答；越高，回答越多样。",
        "max_tokens": "回答长度上限（token）",
        "max_tokens_help": "回答达到这个 token 数后结束。留空则由模型决定。",
        "max_tokens_empty": "由模型决定",
        "clear_ui": "仅清空界面",
        "clear_ui_help": "只清空这个页面；对话和全部记忆保持不变。",
        "cleared": "只清空了页面，对话及其记忆没有改动。",
        "show_again": "重新显示这段对话",
        "backend_line": "{address}",
        "backend_model_line": "{model}  \n{address}",
        "chat_placeholder": "给 OpenPersistentMemory 发消息",
        "empty_title": "想让我记住什么？",
        "empty_hint": "在这段对话里告诉我一件事，几天后换一段对话再来问我。每条回答下方都能看到它用到了哪些记忆。",
        "suggestion_1": "我叫小林，对花生过敏。",
        "suggestion_2": "你了解我哪些事情？",
        "suggestion_3": "我们上次聊了什么？",
        "thinking": "正在查找记忆并思考…… {seconds} 秒",
        "writing": "正在回答……",
        "stop": "停止",
        "stopped": "已停止，已生成的内容会保留。",
        "finish_length": "回答已达到长度上限。",
        "finish_early": "这条回答提前结束（{reason}）。",
        "no_text": "模型没有输出任何内容就结束了。",
        "turns_limited": "这里显示最近 {count} 轮；更早的内容同样被记住。",
        "history_used": "使用的历史 · 重放 {replayed} 段 · 摘要 {summaries} 条",
        "history_none": "没有用到更早的记忆。",
        "replayed": "重放",
        "summarised": "摘要",
        "memory_line": "{when} · 相似度 {score} · 第 {turn} 轮",
        "memory_other_conversation": "对话 {conversation}",
        "memory_this_conversation": "当前对话",
        "score_none": "–",
        "you": "你",
        "assistant": "助手",
        "times_are_local": "时间为你的本地时间（{zone}）；相似度是与你的消息的相似程度。",
        "memory_degraded": "生成这条回答时，记忆没有完全发挥作用。",
        "retry": "重试",
        "edit": "修改消息",
        "request_id": "请求 ID：`{request_id}`",
        "service_said": "服务返回的说明：{said}",
        "settings_wrong": "设置有误",
        "error_unreachable": "无法连接到服务 {address}。",
        "error_unreachable_fix": "请启动服务，或将 `BACKEND_URL` 设为它的地址后重启本页面。",
        "error_silent": "服务 {address} 没有及时响应。",
        "error_silent_fix": "它可能正忙，请稍后重试；如果一直没有响应，请查看服务日志。",
        "error_bad_request": "服务没有接受这个请求。",
        "error_bad_request_field": "服务没有接受字段 {field}。",
        "error_bad_request_fix": "请修改它的值后重试。",
        "error_not_authorized": "服务需要有效的密钥。",
        "error_not_authorized_fix": "请将 `BACKEND_API_KEY` 设为服务的密钥，然后重启本页面。",
        "error_too_busy": "服务已达到上限。",
        "error_too_busy_fix": "请稍等片刻再试。",
        "error_chat_down": "无法连接到服务背后的聊天模型。",
        "error_chat_down_fix": "服务本身运行正常。请启动聊天模型端点，或更正服务的 `LLM_BASE_URL`。",
        "error_chat_slow": "服务背后的聊天模型没有及时响应。",
        "error_chat_slow_fix": "它可能正在加载或负载过高。请稍后重试，或检查服务的聊天模型端点（`LLM_BASE_URL`）。",
        "error_broken": "回答中断了。",
        "error_broken_fix": "已收到的内容保留在页面上；重试可获得完整的回答。",
        "error_unreadable": "{address} 返回的内容无法识别。",
        "error_unreadable_fix": "请确认 `BACKEND_URL` 指向 OpenPersistentMemory 服务。",
        "error_failed": "服务发生了故障。",
        "error_failed_fix": "请重试；如果再次发生，可凭请求 ID 在服务日志中查到原因。",
    },
}

DEFAULT_LANGUAGE = "en"


class Words:
    """The texts of one language: `words("retry")`, `words("turns_limited", count=50)`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = UI_TEXT[language]

    def __call__(self, key: str, /, **values: object) -> str:
        return self._texts[key].format(**values)

    def has(self, key: str) -> bool:
        """Whether there is a text of this name."""
        return key in self._texts


def best_language(wishes: Sequence[str | None]) -> str:
    """The first of the wishes ("zh", "zh-CN", "en-GB", ...) that the table speaks, else English."""
    for wish in wishes:
        language = (wish or "").lower().replace("_", "-").partition("-")[0]
        if language in UI_TEXT:
            return language
    return DEFAULT_LANGUAGE
