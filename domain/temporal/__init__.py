"""The time that a question names, read from English and Chinese, and the gain of memories of that time. Pure."""
