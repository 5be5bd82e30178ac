"""The OpenAI Agents SDK: handoffs, tools and a session, over responses (its default) and over chat completions."""

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, SQLiteSession, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from steps import MODEL, get_weather, step

set_tracing_disabled(True)


async def main():
    for name in ("responses", "chat"):
        model = MODEL if name == "responses" else OpenAIChatCompletionsModel(MODEL, AsyncOpenAI())
        spanish = Agent(name="Spanish agent", instructions="Speak Spanish.", model=model)
        weather = function_tool(get_weather)
        agent = Agent(name="Front", instructions="Help.", model=model, handoffs=[spanish], tools=[weather])
        session = SQLiteSession("one")
        thing = "boat" if name == "responses" else "bicycle"
        with step(f"{name}: first message"):
            assert "Noted" in (await Runner.run(agent, f"My {thing} is red.", session=session)).final_output
        with step(f"{name}: second message, streamed"):
            running = Runner.run_streamed(agent, "It has three gears.", session=session)
            kinds = [event.type async for event in running.stream_events()]
            assert "raw_response_event" in kinds
            assert "Noted" in running.final_output
        with step(f"{name}: tools"):
            city = "Tromso" if name == "responses" else "Oslo"
            result = await Runner.run(agent, f"What is the weather in {city}?", session=session)
            assert f"rain in {city}" in result.final_output
        with step(f"{name}: handoff"):
            result = await Runner.run(agent, f"Transfer me and my {thing} to the Spanish agent.", session=session)
            assert result.last_agent.name == "Spanish agent", result.last_agent.name
        with step(f"{name}: previous response"):
            if name == "responses":
                first = await Runner.run(spanish, "My hat is green.")
                second = await Runner.run(
                    spanish, "What colour is my hat?", previous_response_id=first.last_response_id
                )
                assert "Noted" in second.final_output


asyncio.run(main())
