"""pydantic-ai: an agent over chat completions and over responses, its default for OpenAI models."""

import asyncio

from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from steps import MODEL, PIXEL, get_weather, step


async def main():
    for name, model in (
        ("", OpenAIChatModel(MODEL)),
        ("responses, ", OpenAIResponsesModel(MODEL)),
    ):
        agent = Agent(model, instructions="Be brief.", tools=[get_weather])
        thing = "boat" if name else "bicycle"
        with step(f"{name}first message"):
            first = await agent.run(f"My {thing} is red.")
            assert "Noted" in first.output
        with step(f"{name}second message, streamed"):
            async with agent.run_stream("It has three gears.", message_history=first.all_messages()) as streamed:
                assert "Noted" in await streamed.get_output()
            history = streamed.all_messages()
        with step(f"{name}tools"):
            city = "Tromso" if name else "Oslo"
            answer = await agent.run(f"What is the weather in {city}?", message_history=history)
            assert f"rain in {city}" in answer.output
        with step(f"{name}image"):
            image = BinaryContent.from_data_uri(PIXEL)
            await agent.run(["What is on this picture?", image])


asyncio.run(main())
