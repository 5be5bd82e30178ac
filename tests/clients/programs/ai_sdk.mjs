// The Vercel AI SDK with its provider for OpenAI (responses by default) and the one for compatible endpoints.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import { z } from "zod";
import { API_KEY, BASE_URL, MODEL, PIXEL, check, getWeather, step } from "./steps.mjs";

const { generateText, streamText, tool } = ai;
// Renamed between its versions.
const atMost = ai.isStepCount ?? ai.stepCountIs;
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const compatible = createOpenAICompatible({ name: "memory", baseURL: BASE_URL, apiKey: API_KEY, includeUsage: true });
const tools = {
  get_weather: tool({
    description: "Weather",
    inputSchema: z.object({ city: z.string() }),
    execute: async (given) => getWeather(given),
  }),
};

for (const [name, model, thing, city] of [
  ["openai", openai(MODEL), "boat", "Tromso"],
  ["openai, chat", openai.chat(MODEL), "hat", "Bergen"],
  ["compatible", compatible(MODEL), "bicycle", "Oslo"],
]) {
  const messages = [];
  await step(`${name}: first message`, async () => {
    messages.push({ role: "user", content: `My ${thing} is red.` });
    const answer = await generateText({ model, messages, system: "Be brief." });
    check(answer.text.includes("Noted"));
    messages.push({ role: "assistant", content: answer.text });
  });
  await step(`${name}: second message, streamed`, async () => {
    messages.push({ role: "user", content: `The ${thing} is old.` });
    const streamed = streamText({ model, messages, system: "Be brief." });
    let text = "";
    for await (const piece of streamed.textStream) text += piece;
    check(text.includes("Noted"));
    messages.push({ role: "assistant", content: text });
  });
  await step(`${name}: tools`, async () => {
    const asked = [...messages, { role: "user", content: `What is the weather in ${city}?` }];
    const answer = await generateText({ model, messages: asked, tools, stopWhen: atMost(3) });
    check(answer.text.includes(`rain in ${city}`));
  });
  await step(`${name}: image`, async () => {
    const content = [
      { type: "text", text: `Is this a picture of the ${thing}?` },
      { type: "file", mediaType: "image/png", data: PIXEL },
    ];
    await generateText({ model, messages: [{ role: "user", content }] });
  });
}
