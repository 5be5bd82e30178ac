// What the programs in JavaScript share: see steps.py.
export const BASE_URL = process.env.OPENAI_BASE_URL;
export const API_KEY = process.env.OPENAI_API_KEY;
export const MODEL = process.env.CLIENT_MODEL;
export const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8Dw" +
  "HwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export const getWeather = ({ city }) => `rain in ${city}`;

export function check(holds) {
  if (!holds) throw new Error("not what was expected");
}

export async function step(name, run) {
  await fetch(BASE_URL.replace(/\/v1$/, "/_step"), { method: "POST", body: name });
  let failed = "";
  try {
    await run();
  } catch (error) {
    console.error(error);
    failed = `${error}`.slice(0, 300);
  }
  console.log(JSON.stringify({ step: name, failed }));
}
