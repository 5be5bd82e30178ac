// openai-node: chat completions, streamed and with tools, then responses.
import OpenAI from "openai";
import { MODEL, PIXEL, WEATHER, getWeather, check, step } from "./steps.mjs";

const client = new OpenAI();
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters: WEATHER } }];
const chat = [];

await step("first message", async () => {
  chat.push({ role: "user", content: "My bicycle is red." });
  const answer = await client.chat.completions.create({ model: MODEL, messages: chat });
  check(answer.choices[0].message.content.includes("Noted"));
  chat.push(answer.choices[0].message);
});

await step("second message, streamed", async () => {
  chat.push({ role: "user", content: "It has three gears." });
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model: MODEL, messages: chat, stream: true }))
    text += chunk.choices[0]?.delta?.content ?? "";
  check(text.includes("Noted"));
  chat.push({ role: "assistant", content: text });
});

await step("tools, run by the client", async () => {
  const runner = client.chat.completions.runTools({
    model: MODEL,
    stream: true,
    messages: [...chat, { role: "user", content: "What is the weather in Oslo?" }],
    tools: [{ type: "function", function: { ...tools[0].function, function: getWeather, parse: JSON.parse } }],
  });
  check((await runner.finalContent()).includes("rain in Oslo"));
});

await step("image", async () => {
  const content = [
    { type: "text", text: "What is on this picture?" },
    { type: "image_url", image_url: { url: PIXEL } },
  ];
  await client.chat.completions.create({ model: MODEL, messages: [{ role: "user", content }] });
});

await step("retry after a failure", async () => {
  await client.chat.completions.create({ model: MODEL, messages: [{ role: "user", content: "Please fail once." }] });
});

await step("responses", async () => {
  const first = await client.responses.create({ model: MODEL, input: "My boat is called Wilma." });
  check(first.output_text.includes("Noted"));
  const stream = client.responses.stream({
    model: MODEL,
    input: "What is my boat called?",
    previous_response_id: first.id,
  });
  check((await stream.finalResponse()).output_text.includes("Noted"));
});
