"""OpenAI's Responses API, translated: a request becomes the body of a chat completion, a turn becomes a response."""
