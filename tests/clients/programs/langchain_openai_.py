"""LangChain's ChatOpenAI: history, streaming, tools, an image, and the responses endpoint."""

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from steps import MODEL, PIXEL, step
from steps import get_weather as weather


@tool
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return weather(city)


model = ChatOpenAI(model=MODEL)
chat: list = [SystemMessage("Be brief.")]

with step("first message"):
    chat.append(HumanMessage("My bicycle is red."))
    chat.append(model.invoke(chat))
    assert "Noted" in chat[-1].content

with step("second message, streamed"):
    chat.append(HumanMessage("It has three gears."))
    chunks = list(model.stream(chat))
    text = "".join(chunk.content for chunk in chunks)
    assert "Noted" in text
    chat.append(AIMessage(text))


def with_tools(model, question, messages):
    bound = model.bind_tools([get_weather])
    messages = [*messages, HumanMessage(question)]
    called = bound.invoke(messages)
    assert called.tool_calls
    messages.append(called)
    messages += [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    answer = bound.invoke(messages)
    assert "rain in" in str(answer.content)


with step("tools"):
    with_tools(model, "What is the weather in Oslo?", chat)

with step("image"):
    parts = [
        {"type": "text", "text": "What is on this picture?"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    model.invoke([HumanMessage(parts)])

responses = ChatOpenAI(model=MODEL, use_responses_api=True)

with step("responses"):
    said = [HumanMessage("My boat is called Wilma.")]
    said.append(responses.invoke(said))
    said.append(HumanMessage("What is my boat called?"))
    text = "".join(
        part.get("text", "") for chunk in responses.stream(said) for part in chunk.content if isinstance(part, dict)
    )
    assert "Noted" in text

with step("responses, tools"):
    with_tools(responses, "What is the weather in Tromso?", [])
